"""GLSL of gl.py: one string a stage. Colours are linear BGR; positions metres in the camera's axes; rows of pictures run downwards.

``COMMON`` stands before every stage. Materials and patterns are those of painting.py's painter, written once more for the GPU.
"""

from hmr_ros.training.data.rendered.appearance import (
    BLOTCHES, BOTTOM, BROW, CAMOUFLAGE, CHECKS, EYE, GRADIENT, HAIR, LIPS, PRINT, SHOE, SKIN, SOCK, STRIPES, TOP, UPRIGHT_STRIPES,
)  # fmt: skip

_NAMES = {
    "SKIN": SKIN, "HAIR": HAIR, "TOP": TOP, "BOTTOM": BOTTOM, "SHOE": SHOE, "SOCK": SOCK, "LIPS": LIPS, "EYE": EYE, "BROW": BROW,
    "STRIPES": STRIPES, "UPRIGHT_STRIPES": UPRIGHT_STRIPES, "CHECKS": CHECKS, "BLOTCHES": BLOTCHES, "CAMOUFLAGE": CAMOUFLAGE,
    "GRADIENT": GRADIENT, "PRINT": PRINT,
}  # fmt: skip

COMMON = "".join(f"#define {name} {value}\n" for name, value in _NAMES.items()) + """
const float PI = 3.14159265;
uniform vec4 lens;         // fx, fy, cx, cy in pixels from the picture's corner
uniform vec2 size;         // width, height
uniform vec2 depth_range;  // near, far
vec4 project(vec3 p) {
    float n = depth_range.x, f = depth_range.y;
    return vec4((lens.xy * p.xy + lens.zw * p.z) * 2.0 / size - p.z, ((f + n) * p.z - 2.0 * f * n) / (f - n), p.z);
}
float hash(vec3 p) {
    p = fract(p * vec3(0.1031, 0.1030, 0.0973));
    p += dot(p, p.yxz + 33.33);
    return fract((p.x + p.y) * p.z);
}
float noise(vec3 p) {  // smooth, about [-1, 1]
    vec3 i = floor(p), f = fract(p);
    f = f * f * (3.0 - 2.0 * f);
    vec4 near = vec4(hash(i), hash(i + vec3(1, 0, 0)), hash(i + vec3(0, 1, 0)), hash(i + vec3(1, 1, 0)));
    i.z += 1.0;
    vec4 far = vec4(hash(i), hash(i + vec3(1, 0, 0)), hash(i + vec3(0, 1, 0)), hash(i + vec3(1, 1, 0)));
    vec4 s = mix(near, far, f.z);
    return 2.0 * mix(mix(s.x, s.y, f.x), mix(s.z, s.w, f.x), f.y) - 1.0;
}
"""

SCREEN_VERTEX = """
void main() { gl_Position = vec4(gl_VertexID == 1 ? 3.0 : -1.0, gl_VertexID == 2 ? 3.0 : -1.0, 0.0, 1.0); }
"""

BACKDROP_FRAGMENT = """
uniform sampler2D photo;
out vec4 colour;
void main() { colour = vec4(texelFetch(photo, ivec2(gl_FragCoord.xy), 0).rgb, 1.0); }
"""

DEPTH_VERTEX = """
uniform mat4 matrix;
in vec3 position;
out vec3 p;
void main() { p = position; gl_Position = matrix * vec4(position, 1.0); }
"""

DEPTH_FRAGMENT = """
void main() {}
"""

HEIGHT_FRAGMENT = """
uniform vec4 ground;  // up, height of the ground
in vec3 p;
out float height;
void main() { height = dot(p, ground.xyz) - ground.w; }
"""

PERSON_VERTEX = """
in vec3 position;
in vec3 normal;
in vec3 rest;
in vec4 surface;
in float fixed_material;
out vec3 p;
out vec3 n;
out vec3 r;
out vec4 s;
flat out float fixed_m;
void main() {
    p = position; n = normal; r = rest; s = surface; fixed_m = fixed_material;
    gl_Position = project(position);
}
"""

GEOMETRY_FRAGMENT = """
in vec3 p;
in vec3 n;
out vec4 seen;
void main() {
    vec3 m = normalize(n);
    seen = vec4(dot(m, p) > 0.0 ? -m : m, p.z);
}
"""

# Hemisphere of 16 points around what a pixel sees: those behind something else that is near darken it.
OCCLUSION_FRAGMENT = """
uniform sampler2D surfaces;
uniform float radius;  // metres
out float shade;
void main() {
    ivec2 here = ivec2(gl_FragCoord.xy);
    vec4 seen = texelFetch(surfaces, here, 0);
    shade = 1.0;
    if (seen.w == 0.0) return;
    vec3 p = vec3((gl_FragCoord.xy - lens.zw) / lens.xy * seen.w, seen.w);
    float turn = 2.0 * PI * hash(vec3(here % 4, 1.0)), hidden = 0.0;
    for (int i = 0; i < 16; i++) {
        float h = (float(i) + 0.5) / 16.0, angle = turn + 2.399963 * float(i), ring = sqrt(1.0 - h * h);
        vec3 d = vec3(ring * cos(angle), ring * sin(angle), h);
        vec3 side = normalize(abs(seen.x) < 0.9 ? cross(seen.xyz, vec3(1, 0, 0)) : cross(seen.xyz, vec3(0, 1, 0)));
        vec3 q = p + (side * d.x + cross(seen.xyz, side) * d.y + seen.xyz * d.z) * radius * mix(0.15, 1.0, h * h + 0.1);
        vec2 place = lens.xy * q.xy / q.z + lens.zw;
        if (any(lessThan(place, vec2(0.0))) || any(greaterThanEqual(place, size))) continue;
        float depth = texelFetch(surfaces, ivec2(place), 0).w;
        if (depth > 0.0 && depth < q.z - 0.01) hidden += smoothstep(0.0, 1.0, radius / max(abs(p.z - depth), 1e-4));
    }
    shade = 1.0 - hidden / 16.0;
}
"""

# Of the lamp's light, in [0, 1]: 25 comparisons with the shadow map, ``blur`` metres wide.
_SHADOW = """
uniform sampler2DShadow shadow_map;
uniform mat4 towards_lamp;
uniform vec3 lamp_direction;
float lit_at(vec3 p, float blur) {
    vec3 place = (towards_lamp * vec4(p, 1.0)).xyz * 0.5 + 0.5;
    if (any(lessThan(place, vec3(0.0))) || any(greaterThan(place, vec3(1.0)))) return 1.0;
    float step = 0.25 * blur * length(vec3(towards_lamp[0][0], towards_lamp[1][0], towards_lamp[2][0])) + 0.3 / float(textureSize(shadow_map, 0).x);
    float total = 0.0;
    for (int y = -2; y <= 2; y++)
        for (int x = -2; x <= 2; x++)
            total += texture(shadow_map, vec3(place.xy + step * vec2(x, y), place.z));
    return total / 25.0;
}
"""

GROUND_VERTEX = """
uniform vec3 centre;
uniform mat3 axes;
uniform float reach;
out vec3 p;
out vec2 at;
void main() {
    at = vec2(gl_VertexID % 2, gl_VertexID / 2) * 2.0 - 1.0;
    p = centre + reach * (at.x * axes[0] + at.y * axes[1]);
    gl_Position = project(p);
}
"""

GROUND_FRAGMENT = _SHADOW + """
uniform sampler2D heights;
uniform vec3 up;
uniform float softness;
uniform float lamp_share;
in vec3 p;
in vec2 at;
out vec4 factor;
void main() {
    float fade = 1.0 - smoothstep(0.35, 1.0, length(at));
    float facing = dot(up, lamp_direction);
    float lit = facing > 0.0 ? lit_at(p + 0.01 * up, 0.5 * softness + 0.015) : 1.0;
    float hidden = 0.0, turn = 2.0 * PI * hash(vec3(ivec2(gl_FragCoord.xy) % 4, 2.0));
    for (int i = 0; i < 24; i++) {
        float ring = sqrt((float(i) + 0.5) / 24.0), angle = turn + 2.399963 * float(i);
        vec2 place = at * 0.5 + 0.5 + 0.05 * ring * vec2(cos(angle), sin(angle));
        hidden += exp(-max(texture(heights, place).r, 0.0) / 0.12);
    }
    float contact = 1.0 - 0.8 * smoothstep(0.0, 0.55, hidden / 24.0);
    float direct = lamp_share * smoothstep(0.0, 0.4, facing);
    float left = mix(1.0, (1.0 - direct * (1.0 - lit)) * contact, fade);
    factor = vec4(vec3(left), 1.0);
}
"""

PERSON_FRAGMENT = _SHADOW + """
uniform sampler2D shade;
uniform vec3 up, lamp, sky, ground_light;
uniform vec3 harmonics[9];
uniform float softness;
uniform vec3 colours[18];
uniform int patterns[9];
uniform float frequencies[9], gloss[9], cuts[8];
uniform vec3 eyes[2];
uniform vec3 neck;
in vec3 p, n, r;
in vec4 s;
flat in float fixed_m;
out vec4 colour;

int material_at(vec3 q) {
    float side = abs(q.x);
    float sleeve = cuts[0], waist = cuts[1], hem = cuts[2], shoe = cuts[3], sock = cuts[4], neckline = cuts[5], long_hair = cuts[6];
    if (s.x > 0.5 || (q.y > long_hair && side < 0.1 && q.z < neck.z + 0.01)) return HAIR;
    if (max(s.x, s.y) > 0.5) {
        vec3 eye = q.x > 0.0 ? eyes[0] : eyes[1];
        if (q.z > eye.z - 0.03) {
            vec2 d = q.xy - eye.xy;
            if (dot(d / vec2(0.014, 0.006), d / vec2(0.014, 0.006)) < 1.0) return EYE;
            if (abs(d.x) < 0.022 && abs(d.y - 0.02) < 0.0045) return BROW;
            if (side < 0.024 && abs(d.y + 0.073) < 0.008) return LIPS;
        }
        return SKIN;
    }
    if (q.y > waist) {
        if (side > sleeve || (sleeve <= cuts[7] && side > cuts[7] - 0.03)) return SKIN;
        vec3 d = q - neck - vec3(0, 0, 0.03);
        return dot(d, d) < neckline * neckline ? SKIN : TOP;
    }
    if (q.y < shoe) return SHOE;
    if (q.y > hem) return BOTTOM;
    return q.y < sock ? SOCK : SKIN;
}

float second_colour(int pattern, vec3 q, float frequency) {
    float along = abs(q.x) > 0.22 ? abs(q.x) : q.y;
    if (pattern == STRIPES) return sin(2.0 * PI * frequency * along) > 0.2 ? 1.0 : 0.0;
    if (pattern == UPRIGHT_STRIPES) return sin(2.0 * PI * frequency * (q.x + q.z)) > 0.5 ? 1.0 : 0.0;
    if (pattern == CHECKS) return 0.5 * float(sin(PI * frequency * q.y) > 0.0) + 0.5 * float(sin(PI * frequency * (q.x + q.z)) > 0.0);
    if (pattern == BLOTCHES) return clamp(0.5 + 0.5 * s.w, 0.0, 1.0);
    if (pattern == CAMOUFLAGE) return s.z > 0.1 ? 1.0 : (s.w > 0.3 ? 0.5 : 0.0);
    if (pattern == GRADIENT) return clamp(0.5 + 1.5 * (q.y - 0.1), 0.0, 1.0);
    if (pattern == PRINT && q.z > 0.0 && abs(q.x) < 0.11) {
        float v = sin(frequency * q.y);
        return abs(sin(7.0 * q.x / 0.11 + 3.0 * v)) > 0.4 && abs(v) < 0.8 ? 1.0 : 0.0;
    }
    return 0.0;
}

vec3 ambient_towards(vec3 d) {
    vec3 e = harmonics[0] + harmonics[1] * d.y + harmonics[2] * d.z + harmonics[3] * d.x + harmonics[4] * d.x * d.y + harmonics[5] * d.y * d.z
        + harmonics[6] * (3.0 * d.z * d.z - 1.0) + harmonics[7] * d.x * d.z + harmonics[8] * (d.x * d.x - d.y * d.y);
    float level = 0.5 + 0.5 * dot(d, up);
    return max(e, 0.1) * mix(ground_light, sky, level);
}

// The normal bent by a height (metres): Mikkelsen 2010, from screen-space derivatives.
vec3 bumped(vec3 m, float height) {
    vec3 px = dFdx(p), py = dFdy(p), a = cross(py, m), b = cross(m, px);
    float area = dot(px, a);
    vec3 gradient = sign(area) * (dFdx(height) * a + dFdy(height) * b);
    return normalize(abs(area) * m - gradient);
}

void main() {
    vec3 m = normalize(n), viewer = -normalize(p);
    if (dot(m, viewer) < 0.0) m = -m;
    int material = fixed_m < 0.0 ? material_at(r) : int(fixed_m + 0.5);
    bool cloth = material == TOP || material == BOTTOM || material == SOCK;
    float pixel = length(fwidth(r));  // metres of the surface across a pixel: finer structure is left out
    float fine = clamp(1.0 - pixel * 150.0, 0.0, 1.0), middle = clamp(1.0 - pixel * 25.0, 0.0, 1.0);

    float folds = noise(r * vec3(16.0, 30.0, 16.0) + 3.0 * s.z), wide = noise(r * vec3(9.0, 14.0, 9.0) + 7.0 * s.w);
    float height = 0.0;
    if (cloth) height = 0.0035 * wide + middle * 0.0022 * (1.0 - folds * folds) + fine * 0.00025 * noise(r * 700.0);
    if (material == SKIN) height = fine * 0.00012 * noise(r * 500.0);
    if (material == HAIR) height = middle * 0.0015 * noise(r * vec3(190.0, 14.0, 190.0)) + 0.004 * noise(r * vec3(45.0, 9.0, 45.0));
    m = bumped(m, height);

    float share = second_colour(patterns[material], r, frequencies[material]);
    vec3 albedo = mix(colours[2 * material], colours[2 * material + 1], share);
    if (cloth) albedo *= 1.0 + 0.10 * noise(r * 23.0) + fine * 0.10 * noise(r * vec3(900.0, 450.0, 900.0));
    if (material == SKIN) albedo *= vec3(1.0 - 0.07 * noise(r * 35.0)) + vec3(-0.05, -0.05, 0.03) * noise(r * 19.0 + 5.0);
    if (material == HAIR) albedo *= 1.0 + middle * 0.45 * noise(r * vec3(260.0, 18.0, 260.0)) + 0.2 * noise(r * vec3(60.0, 10.0, 60.0));
    if (material == EYE) {
        vec3 eye = r.x > 0.0 ? eyes[0] : eyes[1];
        albedo = mix(colours[2 * EYE], vec3(0.55), smoothstep(0.0052, 0.0062, length(r.xy - eye.xy)));
    }

    ivec2 here = ivec2(gl_FragCoord.xy), last = ivec2(size) - 1;
    float open = 0.0;  // the noise of the occlusion repeats every 4 x 4 pixels
    for (int y = -2; y < 2; y++)
        for (int x = -2; x < 2; x++)
            open += texelFetch(shade, clamp(here + ivec2(x, y), ivec2(0), last), 0).r / 16.0;
    open = mix(1.0, open, 0.9);

    float facing = dot(m, lamp_direction), lit = lit_at(p + normalize(n) * 0.012 * sign(dot(normalize(n), viewer)) + lamp_direction * 0.006, softness);
    float wrap = material == SKIN || material == LIPS ? 0.25 : cloth ? 0.1 : 0.15;
    vec3 diffuse = vec3(max(0.0, (facing + wrap) / (1.0 + wrap)));
    if (material == SKIN) diffuse = pow(diffuse, vec3(1.25, 1.1, 0.85));  // light goes through skin, red furthest (BGR)
    vec3 middle_way = normalize(viewer + lamp_direction);
    float edge = pow(1.0 - max(0.0, dot(m, viewer)), 4.0);
    float sharp = material == HAIR ? 18.0 : material == SHOE || material == EYE ? 60.0 : material == SKIN ? 22.0 : 8.0;
    float shine = gloss[material] * (0.35 + 0.65 * edge) * pow(max(0.0, dot(m, middle_way)), sharp);
    vec3 around = ambient_towards(m) * open;
    colour = vec4(albedo * (lamp * diffuse * lit + around) + lamp * shine * lit + 0.25 * edge * gloss[material] * around, 1.0);
    if (cloth) colour.rgb += 0.12 * edge * albedo * (around + lamp * lit * 0.3);  // fibres that stand off
    colour = vec4(min(colour.rgb, 1.0), 1.0);
}
"""
