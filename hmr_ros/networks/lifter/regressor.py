"""The lifter as a regressor: features out of people's proxies, the network, and its output turned back into ray axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hmr_ros.body.betas_map import BetasMap
from hmr_ros.networks.lifter.features import person_features, turn_back
from hmr_ros.networks.lifter.on_device import DeviceLifter
from hmr_ros.networks.regressor import BodyParameters, FlipAveraged
from hmr_ros.proxies import FEATURE_MAP, PersonProxies


class LifterRegressor(FlipAveraged):
    """Needs BlazePose's record with its feature map of everybody."""

    name, reliability_source, depth_size = "lifter", "learned", 0
    requires = frozenset({"blazepose"})

    def __init__(
        self,
        network: Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]],
        pelvis: Callable[[np.ndarray], np.ndarray],
        betas_map: BetasMap = BetasMap(),
        body: dict[str, str] | None = None,
        backend: str = "",
        on_device: DeviceLifter | None = None,
    ):
        """network: features (M, FEATURE_COUNT), feature maps (M, *FEATURE_MAP) → BodyParameters' arrays; its betas go through
        ``betas_map`` to the body model that is posed. pelvis: betas (N, 10) → (N, 3), of that model. ``body``: what the network was
        trained with. ``on_device``: the same for people whose proxies are on a device."""
        self._network, self._pelvis, self._betas_map = network, pelvis, betas_map
        self.body, self.backend, self._on_device = body or {}, backend, on_device

    def __call__(self, people: Sequence[PersonProxies]) -> BodyParameters:
        """As `FlipAveraged`; of people whose proxies are on a device, and not flipped as well, tensors there."""
        if self._on_device is not None and all(person.tensors is not None and person.mirrored is None for person in people):
            return self._on_device(people)
        return super().__call__(people)

    def _regress(self, views: Sequence[PersonProxies]) -> BodyParameters:
        if any(view.blazepose is None or view.blazepose.feature_map is None for view in views):
            raise ValueError(
                f"PersonProxies.blazepose.feature_map is None, expected {FEATURE_MAP}: the lifter reads it; take an extractor that gives "
                "it (embedded), or the regressor resnet18"
            )
        features = np.stack([person_features(view) for view in views])
        feature_maps = np.stack([view.blazepose.feature_map for view in views]).astype(np.float32)
        rotations, betas, cameras, reliability = self._network(features, feature_maps)
        betas = self._betas_map(betas)
        angles = np.array([view.blazepose.roi[3] for view in views])
        rotations, cameras = turn_back(rotations, cameras, self._pelvis(betas), angles)
        return BodyParameters(rotations, betas, cameras, reliability)
