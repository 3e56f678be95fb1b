"""Makes a regressor of ``hmr-ros train`` the embedded one, without its frozen decoder, which the embedded pose prior has already.

    python tools/embed_resnet18.py runs/selfsup/regressor.safetensors && python tools/update_manifest.py
"""

from __future__ import annotations

import hashlib
import sys

import torch

from hmr_ros.checkpoint import load_checkpoint, save_checkpoint
from hmr_ros.estimator import EMBEDDED
from hmr_ros.networks.pose_prior import EMBEDDED_PRIOR, load_pose_prior

_DECODER = "pose_decoder."


def main(source: str) -> None:
    tensors, metadata = load_checkpoint(source)
    for name, value in load_pose_prior().decoder.state_dict().items():
        if not torch.equal(tensors.pop(_DECODER + name).float(), value):
            raise SystemExit(f"{source} was trained with another pose prior than {EMBEDDED_PRIOR}: {_DECODER}{name} differs")
    prior = hashlib.sha256(EMBEDDED_PRIOR.read_bytes()).hexdigest()
    save_checkpoint(EMBEDDED["resnet18"], tensors, metadata | {"pose_prior_sha256": prior})


if __name__ == "__main__":
    main(sys.argv[1])
