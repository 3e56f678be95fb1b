"""The pose prior: a box of 32 numbers in which every point is a human pose; the regressor predicts where in it a person is.

The decoder of an adversarial auto-encoder (Makhzani et al. 2015) with the sizes of Kundu et al. 2020: its latent space is
filled evenly, so that a regressor behind a tanh cannot leave it. The encoder is its mirror image, but reads rotation
matrices: two axis-angle vectors of the same rotation are the same pose. Trained by `hmr-ros train prior`.
"""

from __future__ import annotations

from pathlib import Path

from smplx.lbs import batch_rodrigues
from torch import Tensor, nn

from hmr_ros.files import load_checkpoint
from hmr_ros.networks.weights import entry, with_weights

EMBEDDED_PRIOR = Path(__file__).parents[2] / "assets" / "pose_prior.safetensors"
LATENT, JOINTS = 32, 23  # SMPL's joints without the pelvis


class PosePrior(nn.Module):
    """phi (B, 32) in [-1, 1] → theta (B, 69): axis-angle of SMPL's joints 1 to 23, radians."""

    def __init__(self, latent: int = LATENT, widths: tuple[int, int, int] = (512, 1024, 1024)):
        super().__init__()
        self.latent = latent
        a, b, c = widths
        self.encoder = nn.Sequential(
            nn.Linear(9 * JOINTS, c), nn.ReLU(), nn.Linear(c, b), nn.ReLU(), nn.Linear(b, a), nn.ReLU(),
            nn.Linear(a, latent), nn.Tanh(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(latent, a), nn.ReLU(), nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(),
            nn.Linear(c, 3 * JOINTS),
        )  # fmt: skip

    def decode(self, phi: Tensor) -> Tensor:
        """phi (B, 32) → theta (B, 69)."""
        return self.decoder(phi)

    def encode(self, theta: Tensor) -> Tensor:
        """theta (B, 69) axis-angle, radians → phi (B, 32) in (-1, 1)."""
        return self.encode_matrices(rotations(theta))

    def encode_matrices(self, matrices: Tensor) -> Tensor:
        """Rotations (B, 23, 3, 3) relative to the parents → phi (B, 32) in (-1, 1)."""
        return self.encoder(matrices.flatten(1))

    def forward(self, phi: Tensor) -> Tensor:
        return self.decode(phi)


def rotations(theta: Tensor) -> Tensor:
    """theta (B, 69) axis-angle, radians → rotation matrices (B, 23, 3, 3), differentiable also at zero."""
    return batch_rodrigues(theta.reshape(-1, 3)).reshape(-1, JOINTS, 3, 3)


def load_pose_prior(path: str | Path | None = None) -> PosePrior:
    """The prior in a checkpoint of `hmr-ros train prior`, by default the embedded one: frozen and in eval mode.

    Raises FileNotFoundError, or ValueError where the file holds something else.
    """
    path = EMBEDDED_PRIOR if path is None else Path(path)
    tensors, metadata = load_checkpoint(path)
    if metadata.get("network") != "pose_prior":
        raise ValueError(
            f"{path} holds network {metadata.get('network')!r}, expected 'pose_prior', as hmr-ros train prior writes it"
        )
    options = entry(metadata, "options", dict, path)
    return with_weights(lambda: PosePrior(**options), tensors, path).eval().requires_grad_(False)
