"""Collects real pictures with people for benchmarks/domain_gap.py: out of Debian, PyPI and npm packages, by name.

    python tools/collect_people.py runs/people [--packages runs/packages]

Each sub-folder is one scene: one place, one camera or one session, so that holding out a scene holds out its people, too. Pictures are stored as
lossless PNG, at most 1280 px long; of videos, every n-th frame. They serve to measure and are not part of this repository. Left out are
pictures with a watermark, without colour, or rendered.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import cv2

LONGEST_SIDE = 1280  # px
DEBIAN = "opencv-doc"
PYPI = ("scikit-image==0.26.0", "pose2sim==0.10.49", "sports2d==0.8.34", "ultralytics==8.4.190")
NPM = "@vladmandic/human@1.9.4"
_CV, _POSE2SIM = "usr/share/doc/opencv-doc/examples/data", "Pose2Sim/Demo_MultiPerson/videos"
# Scene: files in the packages. Pose2Sim's demos are one take in one room: one scene, and one person of theirs is the calibrated clip's.
PHOTOS = {
    "astronaut": ("skimage/data/astronaut.png",),
    "basketball": (f"{_CV}/basketball1.png", f"{_CV}/basketball2.png"),
    "bus": ("ultralytics/assets/bus.jpg",),
    "zidane": ("ultralytics/assets/zidane.jpg",),
    "portrait": ("package/assets/sample-me.jpg",),
    **{f"party{i}": (f"package/assets/sample{i}.jpg",) for i in range(1, 7)},
}
VIDEOS = {  # scene: files, and every how many frames
    "vtest": ((f"{_CV}/vtest.avi",), 66),
    "sports2d": (("Sports2D/Demo/demo.mp4",), 20),
    "pose2sim": (tuple(f"{_POSE2SIM}/cam0{i}.mp4" for i in range(1, 5)), 33),
}
WANTED = {name for files in (*PHOTOS.values(), *(files for files, _ in VIDEOS.values())) for name in files}


def fetch(packages: Path) -> None:
    """Download what is not there yet."""
    packages.mkdir(parents=True, exist_ok=True)
    if not list(packages.glob(f"{DEBIAN}_*.deb")):
        subprocess.run(["apt-get", "download", DEBIAN], cwd=packages, check=True, stdout=subprocess.DEVNULL)
    for name in PYPI:
        if not list(packages.glob(f"{name.replace('-', '_').replace('==', '-')}-*.whl")):
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", packages, name]
            subprocess.run(pip, check=True)
    if not list(packages.glob("vladmandic-human-1.9.4.tgz")):
        subprocess.run(["npm", "pack", "--silent", NPM], cwd=packages, check=True, stdout=subprocess.DEVNULL)


def unpack(packages: Path, target: Path) -> None:
    for archive in packages.glob(f"{DEBIAN}_*.deb"):
        subprocess.run(["dpkg", "-x", archive, target], check=True)
    for archive in packages.glob("*.whl"):
        with zipfile.ZipFile(archive) as wheel:
            wheel.extractall(target, [name for name in wheel.namelist() if name in WANTED])
    with tarfile.open(packages / "vladmandic-human-1.9.4.tgz") as archive:
        archive.extractall(target, [member for member in archive.getmembers() if member.name in WANTED], filter="data")


def frames(path: Path, step: int):
    """(number, picture) of every ``step``-th frame, from the middle of the first step on."""
    capture, number = cv2.VideoCapture(str(path)), 0
    while (picture := capture.read()[1]) is not None:
        if number % step == step // 2:
            yield number, picture
        number += 1


def store(path: Path, picture) -> None:
    scale = LONGEST_SIDE / max(picture.shape[:2])
    if scale < 1:
        picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), picture):
        raise OSError(f"{path} cannot be written")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--packages", type=Path, default=Path("runs/packages"))
    args = parser.parse_args()
    if args.out.is_dir() and any(args.out.iterdir()):
        sys.exit(f"{args.out} is not empty: what lies there would count as a scene; name an empty folder")
    fetch(args.packages)
    with tempfile.TemporaryDirectory() as folder:
        unpack(args.packages, Path(folder))
        missing = sorted(name for name in WANTED if not (Path(folder) / name).is_file())
        if missing:
            sys.exit(f"not in the packages: {', '.join(missing)}; other versions than Debian 12's and {', '.join((*PYPI, NPM))}?")
        for scene, files in PHOTOS.items():
            for name in files:
                store(args.out / scene / f"{Path(name).stem}.png", cv2.imread(str(Path(folder) / name)))
        for scene, (files, step) in VIDEOS.items():
            for name in files:
                for number, picture in frames(Path(folder) / name, step):
                    store(args.out / scene / f"{Path(name).stem}_{number:04d}.png", picture)
    print(f"{len(list(args.out.rglob('*.png')))} pictures of {len(PHOTOS) + len(VIDEOS)} scenes in {args.out}")


if __name__ == "__main__":
    main()
