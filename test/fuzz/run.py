"""Run one fuzz target under atheris: ``run.py TARGET FOLDER [flags of libFuzzer]``; FOLDER keeps its corpus and what crashes.

Bound in time and memory by libFuzzer: -timeout and -rss_limit_mb. `make fuzz` calls this for every target. The native decoders (OpenCV,
safetensors, SQLite) have no coverage counters, so there it is a mutating fuzzer; what Python decides is guided by coverage.
"""

import logging
import os
import sys
import warnings
from pathlib import Path

import atheris

# OpenCV takes 2^30 pixels, 3 GB, for granted; within this a limit of memory means something.
os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(2**26)
os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
with atheris.instrument_imports(include=["hmr_ros", "rosbags", "fuzz"]):
    from fuzz.targets import TARGETS

import cv2
import torch


def main() -> None:
    name, folder, *flags = sys.argv[1:]
    target, folder = TARGETS[name], Path(folder)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for index, seed in enumerate(target.seeds()):
        assert target.read(seed), f"seed {index} of {name} is not read"
        (corpus / f"seed-{index}").write_bytes(seed)
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    limits = ["-timeout=30", "-rss_limit_mb=3000", "-max_len=1024", "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    atheris.Setup([sys.argv[0], *limits, *flags, str(corpus)], target.read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
