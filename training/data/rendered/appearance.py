"""How a synthetic person looks: clothes, skin, hair and face, as colours, patterns and borders on the body model.

Everything is described in the rest pose (metres, y up, facing +z, left = +x), where a sleeve ends at an x and a hem at a
y; so borders are crisp at any resolution and need no texture map (painting.py paints them). Clothes also move the surface outwards a little, with
wrinkles, because trousers are wider than legs. The body that carries the truth is not changed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

SKIN, HAIR, TOP, BOTTOM, SHOE, SOCK, LIPS, EYE, BROW = range(9)
PLAIN, STRIPES, UPRIGHT_STRIPES, CHECKS, BLOTCHES, CAMOUFLAGE, GRADIENT, PRINT = range(8)

# Skin from light to dark, BGR, with the relative frequency we want to see; spread evenly on purpose.
SKIN_TONES = np.array(
    [(200, 215, 240), (165, 190, 230), (140, 170, 215), (110, 145, 195), (85, 120, 170), (60, 90, 135), (45, 65, 100),
     (32, 46, 70)],
    np.float32,
)  # fmt: skip
HAIR_COLOURS = np.array(
    [(20, 18, 18), (30, 28, 35), (30, 45, 65), (40, 70, 110), (70, 120, 170), (110, 170, 210), (35, 60, 130),
     (170, 170, 175)],
    np.float32,
)  # fmt: skip


@dataclass(frozen=True)
class Outfit:
    """One person's clothes and colours."""

    colours: np.ndarray  # (9 materials, 2, 3) BGR 0..255: the main colour and the pattern's other one
    patterns: np.ndarray  # (9,) int
    frequencies: np.ndarray  # (9,) stripes or checks per metre
    gloss: np.ndarray  # (9,) strength of the highlight
    cuts: np.ndarray  # (8,) sleeve |x|, waist y, hem y, shoe y, sock y, neckline radius, hair length y, sleeveless x
    offsets: np.ndarray  # (V,) metres, outwards
    fields: np.ndarray  # (V, 2) smooth noise about [-1, 1]

    def without(self, names: frozenset[str]) -> Outfit:
        """Plain cloth for "patterns", skin in place of cloth for "clothes", cloth as tight as skin for "cloth_shape"."""
        colours, patterns, cloth = self.colours.copy(), self.patterns.copy(), [TOP, BOTTOM, SHOE, SOCK]
        if "patterns" in names:
            patterns[cloth] = PLAIN
        if "clothes" in names:
            colours[cloth], patterns[cloth] = colours[SKIN], patterns[SKIN]
        offsets = np.zeros_like(self.offsets) if "cloth_shape" in names else self.offsets
        return replace(self, colours=colours, patterns=patterns, offsets=offsets)


class Dresser:
    """Knows where waist, wrists and eyes of a body model are, and draws :class:`Outfit` s for it."""

    def __init__(self, rest: np.ndarray, joints: np.ndarray, keypoints: np.ndarray, hair: np.ndarray, head: np.ndarray):
        """Rest pose of the mean body: vertices (V, 3), joints (24, 3), keypoints (17, 3); hair, head (V,) bool."""
        self.rest = np.ascontiguousarray(rest, np.float32)
        self.joints = joints
        self.hair, self.head = hair.astype(np.float32), head.astype(np.float32)
        self.eyes = np.ascontiguousarray(keypoints[1:3], np.float32)
        self.floor = float(rest[:, 1].min())

    def look(self, rng: Generator) -> Outfit:
        joints, floor = self.joints, self.floor
        colours = np.zeros((9, 2, 3), np.float32)
        for material in (TOP, BOTTOM, SHOE, SOCK):
            colours[material] = garment_colour(rng), garment_colour(rng)
        if rng.random() < 0.15:
            colours[BOTTOM] = colours[TOP]  # a dress, an overall, a suit
        skin = SKIN_TONES[rng.integers(len(SKIN_TONES))] * rng.uniform(0.85, 1.1) * rng.uniform(0.96, 1.04, 3)
        colours[SKIN] = skin
        colours[LIPS] = skin * np.array([0.68, 0.6, 0.85])
        hair = HAIR_COLOURS[rng.choice(len(HAIR_COLOURS), p=[0.25, 0.2, 0.2, 0.1, 0.08, 0.05, 0.05, 0.07])]
        colours[HAIR] = hair * rng.uniform(0.7, 1.3)
        if rng.random() < 0.12:
            colours[HAIR] = garment_colour(rng)  # a hat, a scarf, dyed
        elif rng.random() < 0.08:
            colours[HAIR] = skin * 0.97
        colours[EYE] = (35, 30, 30)
        colours[BROW] = 0.5 * hair + 0.3 * skin
        patterns = np.zeros(9, np.int64)
        patterns[TOP] = rng.choice(8, p=[0.44, 0.1, 0.05, 0.08, 0.08, 0.05, 0.06, 0.14])
        patterns[BOTTOM] = rng.choice(8, p=[0.74, 0.03, 0.03, 0.05, 0.08, 0.04, 0.03, 0.0])
        patterns[HAIR] = patterns[SKIN] = BLOTCHES
        colours[HAIR, 1] = colours[HAIR, 0] * 0.75
        colours[SKIN, 1] = skin * np.array([0.9, 0.93, 1.0])
        frequencies = rng.uniform(6, 40, 9)
        gloss = np.array([0.12, 0.2, 0.03, 0.03, 0.15, 0.0, 0.15, 0.3, 0.0]) * rng.uniform(0.3, 1.6)

        shoulder, elbow, wrist = (float(joints[j, 0]) for j in (16, 18, 20))
        knee, ankle, hip = (float(joints[j, 1]) for j in (4, 7, 1))
        sleeves = rng.choice(4, p=[0.1, 0.4, 0.08, 0.42])
        sleeve = (
            shoulder - 0.01,
            shoulder + rng.uniform(0.45, 0.9) * (elbow - shoulder),
            elbow + rng.uniform(0.2, 0.6) * (wrist - elbow),
            wrist + rng.uniform(-0.03, 0.03),
        )[sleeves]
        legs = rng.choice(3, p=[0.7, 0.2, 0.1])
        hem = (floor - 1.0, knee + rng.uniform(-0.05, 0.25), rng.uniform(ankle + 0.05, knee))[legs]
        waist = hip + rng.uniform(-0.08, 0.16)
        shoe = ankle + (rng.uniform(-0.03, 0.05) if rng.random() < 0.85 else rng.uniform(0.05, 0.3))
        if rng.random() < 0.05:
            shoe = floor - 1.0  # barefoot
        sock = shoe + (rng.uniform(0, 0.2) if rng.random() < 0.4 else 0.0)
        neckline = rng.uniform(0.05, 0.11) if rng.random() < 0.85 else rng.uniform(0.11, 0.17)
        long_hair = rng.uniform(float(joints[12, 1]) - 0.25, float(joints[15, 1])) if rng.random() < 0.3 else 9.0
        cuts = np.array([sleeve, waist, hem, shoe, sock, neckline, long_hair, shoulder - 0.01])

        fields = np.stack([_waves(self.rest, rng, 6.0, 5), _waves(self.rest, rng, 14.0, 5)], axis=1)
        return Outfit(
            colours, patterns, frequencies, gloss, cuts, self._offsets(cuts, legs == 0, fields, rng), fields
        )

    def _offsets(self, cuts: np.ndarray, trousers: bool, fields: np.ndarray, rng: Generator) -> np.ndarray:
        """How far clothes and hair stand off the skin, metres per vertex."""
        x, y, z = np.abs(self.rest[:, 0]), self.rest[:, 1], self.rest[:, 2]
        sleeve, waist, hem, shoe, _, _, long_hair, _ = cuts
        body = 1 - np.maximum(self.head, self.hair)
        loose_top = rng.choice([0.003, 0.012, 0.024], p=[0.3, 0.45, 0.25]) * rng.uniform(0.5, 1.2)
        loose_bottom = rng.choice([0.003, 0.012, 0.024], p=[0.35, 0.45, 0.2]) * rng.uniform(0.5, 1.2)
        neck_y = self.joints[12, 1]
        top = body * _smooth(sleeve - x, 0.02) * _smooth(y - waist, 0.02) * _smooth(neck_y - y, 0.06)
        bottom = body * _smooth(waist - y, 0.02) * _smooth(y - hem, 0.02) * (y > self.floor + 0.09)
        if trousers:  # wider towards the ankle or straight
            bottom = bottom * (1 + rng.uniform(-0.4, 0.8) * np.clip((waist - y) / 0.9, 0, 1))
        wrinkles = 0.25 * fields[:, 1] + 0.2 * _waves(self.rest, rng, 30.0, 5)
        cloth = top * loose_top + bottom * loose_bottom
        offsets = cloth * (1 + wrinkles) + (top + bottom) * 0.0015 * wrinkles
        offsets = offsets + 0.006 * body * (y < min(shoe, self.floor + 0.1))
        scalp = self.hair * rng.choice([0.0, 0.012, 0.028], p=[0.2, 0.5, 0.3])
        if long_hair < 5:
            behind = _smooth(self.joints[15, 2] - z, 0.03) * _smooth(y - long_hair, 0.04) * _smooth(0.1 - x, 0.03)
            scalp = np.maximum(scalp, 0.03 * behind)
        return (offsets + scalp * (1 + 0.2 * fields[:, 1])).astype(np.float32)


def _smooth(value: np.ndarray, width: float) -> np.ndarray:
    return np.clip(0.5 + value / (2 * width), 0, 1)


def _waves(points: np.ndarray, rng: Generator, frequency: float, count: int) -> np.ndarray:
    """Smooth noise about [-1, 1] at (V, 3) points: a few random plane waves of about ``frequency`` radians a metre."""
    directions = rng.normal(0, frequency, (count, 3)).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, (count, 1)).astype(np.float32)
    return np.sin(directions @ points.T + phases).sum(0) / np.float32(np.sqrt(count))


def garment_colour(rng: Generator) -> np.ndarray:
    """BGR: half of what people wear is black, grey, white, denim or beige; the rest has a hue."""
    if rng.random() < 0.5:
        base = np.array([(28, 26, 26), (60, 58, 58), (120, 120, 120), (225, 225, 225), (110, 75, 50), (140, 175, 195)])
        return base[rng.integers(len(base))] * rng.uniform(0.7, 1.1)
    hue, saturation, value = rng.uniform(0, 1), rng.uniform(0.25, 0.9), rng.uniform(60, 235)
    wheel = np.clip(np.abs((hue * 6 + np.array([0, 2, 4])) % 6 - 3) - 1, 0, 1)
    return value * (1 - saturation + saturation * wheel)
