"""Meshes of bodies for those who get none: messages without vertices and recordings hold parameters of a body model, which is loaded here."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from hmr_ros.estimate import BodyEstimate


class MeshMaker:
    """Vertices and faces of bodies; the model at ``path`` (the embedded one) is loaded when it is first needed.

    ``expect`` says which model the bodies belong to, by its SHA-256. With another one here ``missing`` says so, and there are no meshes.
    """

    def __init__(self, path: str | Path | None = None):
        self._path = path
        self._model = None
        self._name = self._sha256 = ""
        self._published: np.ndarray | None = None
        self._lock = threading.Lock()
        self.missing = ""

    def expect(self, name: str, sha256: str, faces: np.ndarray | None = None) -> None:
        """``faces`` (F, 3): those of published vertices."""
        self._name, self._sha256 = name, sha256
        if faces is not None:
            self._published = np.ascontiguousarray(faces, np.uint32).reshape(-1, 3)

    def load(self) -> None:
        """Load the model now, which takes seconds, and not when the first body is drawn."""
        self._loaded()

    def __call__(self, body: BodyEstimate) -> tuple[np.ndarray, np.ndarray] | None:
        """vertices (V, 3) in the body's axes and faces (F, 3), or None without the body model."""
        if len(body.vertices) and self._published is not None:
            return body.vertices, self._published
        model = self._loaded()
        if model is None:
            return None
        import torch
        from scipy.spatial.transform import Rotation

        pose = np.concatenate([body.global_orient, body.body_pose]).reshape(24, 3)
        with torch.no_grad():
            rotations = torch.from_numpy(Rotation.from_rotvec(pose).as_matrix()[None]).float()
            vertices = model(rotations, torch.from_numpy(np.asarray(body.betas, np.float32)[None])).vertices[0].numpy()
        return vertices, model.faces.astype(np.uint32)

    def _loaded(self):
        with self._lock:
            if self._model is None:
                from hmr_ros.body.model import BodyModel

                self._model = BodyModel.load(self._path)
        if self._sha256 and not self._model.shares_betas_with(self._sha256):
            self.missing = (f"bodies belong to body model {self._name} ({self._sha256[:8]}), here is {self._model.name} ({self._model.sha256[:8]}): "
                            "skeletons only; name its file by --body-model, or publish vertices")  # fmt: skip
            return None
        self.missing = ""
        return self._model
