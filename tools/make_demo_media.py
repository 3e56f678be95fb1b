"""The embedded demo media: one public-domain photo and nine seconds of a pedestrian video, cut from published packages.

    pip download --no-deps scikit-image==0.26.0        # skimage/data/astronaut.png
    apt-get download opencv-doc                        # usr/share/doc/opencv-doc/examples/data/vtest.avi (dpkg-deb -x)
    python tools/make_demo_media.py --photo astronaut.png --video vtest.avi --out hmr_ros/assets/demo

The excerpt starts at frame 600: the frames before are left to training and tuning, so that the demo shows pictures nothing was fitted to.
"""
from __future__ import annotations

import argparse
from pathlib import Path

import cv2

FIRST, COUNT = 600, 90


def read_frames(path: Path, first: int, count: int):
    """Frames first .. first + count - 1, decoded from the start (seeking is inexact in some containers), and the frame rate."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    for i in range(first + count):
        ok, frame = capture.read()
        if not ok:
            raise ValueError(f"{path}: ends after {i} frames, {first + count} are needed")
        if i >= first:
            frames.append(frame)
    return frames, capture.get(cv2.CAP_PROP_FPS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photo", type=Path, required=True)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("hmr_ros/assets/demo"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    photo = args.out / "astronaut.jpg"
    image = cv2.imread(str(args.photo))
    if image is None:
        raise ValueError(f"{args.photo} is not a readable image")
    cv2.imwrite(str(photo), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
    frames, fps = read_frames(args.video, FIRST, COUNT)
    video = args.out / "pedestrians.mp4"
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise RuntimeError("this OpenCV cannot write MPEG-4 video")
    for frame in frames:
        writer.write(frame)
    writer.release()
    back, _ = read_frames(video, 0, COUNT)
    quality = min(cv2.PSNR(a, b) for a, b in zip(frames, back))
    print(f"{photo}: {photo.stat().st_size / 1e3:.0f} kB; {video}: {len(back)} frames at {fps:g} Hz, {video.stat().st_size / 1e6:.2f} MB, worst frame {quality:.1f} dB")


if __name__ == "__main__":
    main()
