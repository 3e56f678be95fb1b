"""What `hmr-ros adapt` shows of its figures: a table for the terminal, and one HTML page with plots and meshes before and after."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from rich.table import Table
from torch import nn

from hmr_ros.body.model import BodyModel
from hmr_ros.drawing import draw_keypoints, draw_overlay, draw_side_view
from hmr_ros.estimate import BodyEstimate
from hmr_ros.files import atomic_write
from hmr_ros.geometry import project_weak, rotvec_from_matrix
from hmr_ros.body.posed_keypoints import PosedKeypoints
from hmr_ros.training.adaptation.scores import UNITS, Part
from hmr_ros.training.adaptation.teacher import regress

PARTS = {
    "recording": "your recording, held-out part",
    "viewpoint": "rendered people before your camera",
    "replay": "rendered people before other cameras",
}
NAMES = {
    "reprojection": "re-projection error", "depth": "depth error", "fit": "distance to bodies fitted over time", "jitter": "acceleration of joints",
    "bones": "variation of bone lengths", "mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE",
}  # fmt: skip
_EXAMPLES = 3  # of people who gained most, and as many of those who lost most
_TILE = 320  # px


def text(content: dict) -> Table:
    table = Table(title=f"before and after; change with its 95 % interval ({content['tracks']['held_out']} held-out tracks)")
    for name in ("measure", "before", "after", "change", ""):
        table.add_column(name, justify="left" if name in ("measure", "") else "right")
    for row in _rows(content):
        table.add_row(*row)
    return table


def of_rig(camera: dict) -> str:
    """What triangulation taught of one camera of a rig."""
    error = f", joints re-project {camera['reprojection_mm']:.0f} mm away in the median" if camera["triangulated"] else ": it shares nobody with another one"
    return f"{camera['name']}: {camera['triangulated']} of {camera['detections']} detections to learn from are triangulated{error}"


def of_reliability(rated: dict | None) -> list[str]:
    """Whether the reliability tells the truth, before and after; nothing where it is no probability."""
    if rated is None:
        return []
    kept = {"calibrated": f"calibrated (slope {rated['slope']:.2f}, offset {rated['offset']:+.2f})", "as it was": "left as it was: calibration made it no better"}
    return [
        f"reliability, {PARTS[part]}: calibration error (ECE) {some['before']['ece']:.3f} → {some['after']['ece']:.3f}, AUROC {some['before']['auroc']:.3f} → "
        f"{some['after']['auroc']:.3f}" for part, some in rated["scores"].items()
    ] + [f"reliability: {kept[rated['kept']]}"]  # fmt: skip


def _rows(content: dict) -> list[tuple[str, str, str, str, str]]:
    return [
        (f"{NAMES[name]}, {UNITS[name]}: {PARTS[part]}", f"{change['before']:.2f}", f"{change['after']:.2f}",
         f"{100 * change['change']:+.1f} % ({100 * change['low']:+.1f} to {100 * change['high']:+.1f})", change["verdict"])
        for part, some in content["changes"].items() for name, change in some.items()
    ]  # fmt: skip


def pictures(
    held: Part, networks: Sequence[nn.Module], body: BodyModel, skeleton: PosedKeypoints, values: Sequence[dict[str, np.ndarray]],
    frame_of: Callable[[int, int], np.ndarray],
) -> list[tuple[str, np.ndarray]]:  # fmt: skip
    """Held-out people who gained and lost most, by their distance to the fitted body: (title, BGR picture) each: the detected joints, then the body
    before and after, from the camera and from its right. ``frame_of``: recording and number of a frame → (H, W, 3)."""
    gained = values[0]["fit"] - values[1]["fit"]
    known = np.flatnonzero(np.isfinite(gained))
    if not len(known):
        return []
    order = known[np.argsort(gained[known])]
    _, firsts = np.unique(held.people.track[order[::-1]], return_index=True)  # one of each track
    best = order[::-1][np.sort(firsts)][:_EXAMPLES]
    _, firsts = np.unique(held.people.track[order], return_index=True)
    worst = [row for row in order[np.sort(firsts)] if row not in best][:_EXAMPLES]
    shown = []
    for row in [*best, *worst]:
        person = held.people[np.array([row])]
        frame = frame_of(int(person.recording[0]), int(person.rows["index"][0]))
        bodies = [_body(network, skeleton, body, person) for network in networks]
        title = f"{person.rows['stamp'][0]:.1f} s: {values[0]['fit'][row]:.0f} → {values[1]['fit'][row]:.0f} mm"
        shown.append((title, _strip(frame, person.rows["keypoints"][0], bodies, body.faces)))
    return shown


def _body(network: nn.Module, skeleton: PosedKeypoints, model: BodyModel, person) -> BodyEstimate:
    rotations, betas, cameras, reliability = regress(network, skeleton, person)
    with torch.inference_mode():
        posed = model.forward(torch.from_numpy(rotations), torch.from_numpy(betas))
    pose, rows = rotvec_from_matrix(rotations[0]).astype(np.float32), {name: values[0] for name, values in person.rows.items()}
    return BodyEstimate(
        float(rows["score"]), rows["box"], rows["keypoints"], reliability[0], pose[0], pose[1:].ravel(), betas[0], rows["crop"], cameras[0], None,
        posed.joints[0].numpy(), posed.vertices[0].numpy(), project_weak(posed.keypoints[0].numpy(), cameras[0], rows["crop"]),
    )  # fmt: skip


def _strip(frame: np.ndarray, keypoints: np.ndarray, bodies: Sequence[BodyEstimate], faces: np.ndarray) -> np.ndarray:
    views = [draw_keypoints(frame, keypoints), *(draw_overlay(frame, [body], faces) for body in bodies)]
    views += [draw_side_view([body], faces, frame.shape[:2]) for body in bodies]
    cu, cv, size = bodies[0].crop
    reach = int(0.65 * size)
    x, y = int(round(cu)), int(round(cv))
    tiles = []
    for view in views:
        padded = cv2.copyMakeBorder(view, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=(40, 40, 40))
        tile = padded[max(y, 0) : y + 2 * reach, max(x, 0) : x + 2 * reach]
        tiles.append(cv2.resize(tile, (_TILE, _TILE), interpolation=cv2.INTER_AREA))
    return np.hstack(tiles)


def save(path: Path, content: dict, shown: Sequence[tuple[str, np.ndarray]]) -> None:
    """One page with everything in it."""
    colour = {"keep": "#1a7f37", "worse": "#b42318", "no difference": "#57606a"}[content["verdict"]["result"]]
    rows = "".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in row)}</tr>" for row in _rows(content))
    counts, cameras = content["detections"], content["cameras"]
    facts = [
        *content["recordings"],
        f"{counts['learned']} detections of {content['tracks']['learned']} tracks to learn from, {counts['sure']} fitted bodies were sure enough; left out: "
        + (", ".join(f"{count} {reason}" for reason, count in counts["left_out"].items() if count) or "none"),
        *(f"camera {number}: {camera['height_m']:.2f} m above the floor, {camera['looking_down_deg']:.0f}° down, horizon turned by {camera['roll_deg']:.0f}°, "
          f"noise {camera['noise_levels']:.0f} of 255 levels, {'standing still' if camera['background'] else 'moving'}"
          for number, camera in enumerate(cameras)),
        *map(of_rig, content["rig"]),
        *of_reliability(content["reliability"]),
        f"{100 * content['blend']:.0f} % of the learned weights, the rest of the old ones: as much as other cameras allow",
    ]  # fmt: skip
    images = "".join(f"<figure><img src='{_inline(picture)}'><figcaption>{html.escape(title)}</figcaption></figure>" for title, picture in shown)
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>hmr_ros: adaptation to a camera</title>
<style>body{{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem;color:#1f2328}}h1{{font-size:1.5rem}}
.verdict{{border-left:.4rem solid {colour};padding:.5rem 1rem;background:#f6f8fa}}table{{border-collapse:collapse;width:100%}}
td,th{{padding:.3rem .6rem;border-bottom:1px solid #d0d7de;text-align:left}}td:nth-child(n+2):nth-child(-n+4){{text-align:right;white-space:nowrap}}
figure{{margin:1rem 0}}img{{max-width:100%}}figcaption{{color:#57606a}}</style>
<h1>Adaptation to a camera</h1>
<p class="verdict"><strong>{html.escape(content['verdict']['result'])}</strong>: {html.escape(content['verdict']['why'])}.</p>
<table><tr><th>measure</th><th>before</th><th>after</th><th>change (95 %)</th><th></th></tr>{rows}</table>
<p><img src="{_plot(content)}" alt="changes with their intervals"></p>
<p>Less is better in every row. Intervals are by bootstrap over tracks, or rendered people. The held-out part is the end of each recording: nothing was
learned from it. It has no labels: the first rows tell whether bodies agree with what was seen, not whether they are right. Only rendered people have truth.</p>
<h2>Held-out people who gained and lost most</h2>
<p>Detected joints; body before and after; both from the side. The figure is the distance to the body fitted over time.</p>{images or '<p>none</p>'}
<h2>How it was made</h2><ul>{''.join(f'<li>{html.escape(fact)}</li>' for fact in facts)}</ul>
<p>hmr_ros {html.escape(content['version'])}, from {html.escape(content['checkpoint']['file'])} ({content['checkpoint']['sha256'][:8]}), seed
{content['settings']['seed']}. All figures: report.json.</p></html>"""
    with atomic_write(path) as partial:
        partial.write_text(page)


def _inline(picture: np.ndarray) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()).decode()


def _plot(content: dict) -> str:
    """Changes in percent with their intervals, as an SVG."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    rows = [(f"{NAMES[name]}: {PARTS[part]}", change) for part, some in content["changes"].items() for name, change in some.items()][::-1]
    figure = Figure(figsize=(9, 0.4 * len(rows) + 0.8))
    FigureCanvasSVG(figure)
    axes = figure.add_axes((0.5, 0.8 / (0.4 * len(rows) + 0.8) * 0.7, 0.47, 0.8))
    for place, (_, change) in enumerate(rows):
        colour = {"better": "#1a7f37", "worse": "#b42318", "no difference": "#57606a"}[change["verdict"]]
        axes.plot([100 * change["low"], 100 * change["high"]], [place, place], color=colour, linewidth=2)
        axes.plot(100 * change["change"], place, "o", color=colour)
    axes.axvline(0, color="#1f2328", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_xlabel("change, %; left is better")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(file.getvalue()).decode()
