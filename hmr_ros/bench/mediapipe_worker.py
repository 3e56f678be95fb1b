"""MediaPipe Pose over frames in memory, in an environment of its own: it needs numpy below 2. Run by mediapipe.py, never imported.

    python mediapipe_worker.py frames.npy        # uint8 (N, H, W, 3) RGB

A line of standard input is a JSON list of frame indices, its answer a line "times [seconds, ...] people", people being the share of frames with one.
The graph keeps its memory from line to line: the full model, tracking, with segmentation.
"""

import json
import sys
import time

import mediapipe
import numpy as np


def main() -> None:
    frames = [np.ascontiguousarray(frame) for frame in np.load(sys.argv[1], mmap_mode="r")]
    with mediapipe.solutions.pose.Pose(static_image_mode=False, model_complexity=1, enable_segmentation=True) as pose:
        print("ready", mediapipe.__version__, flush=True)
        for line in sys.stdin:
            seconds, found = [], 0
            for index in json.loads(line):
                begin = time.perf_counter()
                result = pose.process(frames[index])
                seconds.append(time.perf_counter() - begin)
                found += result.pose_landmarks is not None and result.segmentation_mask is not None
            print("times", json.dumps(seconds), found / len(seconds), flush=True)


if __name__ == "__main__":
    main()
