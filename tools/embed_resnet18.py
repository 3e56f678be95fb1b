"""Makes a regressor of ``hmr-ros train`` the embedded one, without its frozen decoder, which the embedded pose prior has already.

    python tools/embed_resnet18.py runs/selfsup/regressor.safetensors && python tools/update_manifest.py
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import torch

from hmr_ros.files import load_checkpoint, save_checkpoint
from hmr_ros.networks.paper.prior import load_pose_prior

_DECODER = "pose_decoder."
_EMBEDDED = Path(__file__).resolve().parents[1] / "hmr_ros" / "assets" / "resnet18.safetensors"  # this checkout's, not an installed one
_PRIOR = _EMBEDDED.with_name("pose_prior.safetensors")


def main(source: str) -> None:
    tensors, metadata = load_checkpoint(source)
    for name, value in load_pose_prior(_PRIOR).decoder.state_dict().items():
        if not torch.equal(tensors.pop(_DECODER + name).float(), value):
            raise SystemExit(f"{source} was trained with another pose prior than {_PRIOR}: {_DECODER}{name} differs")
    prior = hashlib.sha256(_PRIOR.read_bytes()).hexdigest()
    save_checkpoint(_EMBEDDED, tensors, metadata | {"pose_prior_sha256": prior})


if __name__ == "__main__":
    main(sys.argv[1])
