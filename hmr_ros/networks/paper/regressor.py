"""The paper's network as a regressor: it needs nothing but the core of people's proxies, keypoints and depth."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import numpy as np

from hmr_ros.body.betas_map import BetasMap
from hmr_ros.networks.paper.maps import MAP_SIZE, device_maps, person_maps
from hmr_ros.networks.regressor import BodyParameters, FlipAveraged
from hmr_ros.proxies import PersonProxies
from hmr_ros.runtime import CompiledModel


logger = logging.getLogger(__name__)


class MapsRegressor(FlipAveraged):
    name, reliability_source = "resnet18", "agreement"
    requires = frozenset()

    def __init__(
        self,
        network: Callable[[np.ndarray, np.ndarray], Sequence[np.ndarray]],
        depth_size: int = MAP_SIZE,
        betas_map: BetasMap = BetasMap(),
        body: dict[str, str] | None = None,
        backend: str = "",
        depth_sources: frozenset[str] = frozenset(),
    ):
        """network: joints (M, 17, 3) and depth (M, depth_size, depth_size) as ``person_maps`` gives them → BodyParameters' arrays; its
        betas go through ``betas_map`` to the body model that is posed. ``body``: what the network was trained with.
        ``depth_sources``: what its depth was in training (``PersonProxies.depth_source``); another one warns once. Empty: not known."""
        self._network, self.depth_size, self._betas_map = network, depth_size, betas_map
        self.body, self.backend = body or {}, backend
        self.depth_sources, self._warned = depth_sources, False

    def __call__(self, people: Sequence[PersonProxies]) -> BodyParameters:
        """As `FlipAveraged`; of people whose proxies are on a device, and not flipped as well, tensors there."""
        on_device = isinstance(self._network, CompiledModel) and all(p.tensors is not None and p.mirrored is None for p in people)
        return self._on_device(people) if on_device else super().__call__(people)

    def _on_device(self, people: Sequence[PersonProxies]) -> BodyParameters:
        self._warn_of_other_depth({person.depth_source for person in people} - {"none"})
        joints, depth = device_maps(people, self.depth_size)
        rotations, betas, cameras, reliability = (output.to(depth.device) for output in self._network.tensors(joints, depth))
        return BodyParameters(rotations, self._betas_map(betas), cameras, reliability)

    def _regress(self, views: Sequence[PersonProxies]) -> BodyParameters:
        self._warn_of_other_depth({person.depth_source for person in views} - {"none"})
        rotations, betas, cameras, reliability = self._network(*person_maps(views, self.depth_size))
        return BodyParameters(rotations, self._betas_map(betas), cameras, reliability)

    def _warn_of_other_depth(self, sources: set[str]) -> None:
        if self.depth_sources and not self._warned and sources - self.depth_sources:
            self._warned = True
            logger.warning(
                "the regressor %s was trained on %s depth, and this is %s depth, whose errors are others: expect worse bodies; train on "
                "proxies of the same kind", self.name, " and ".join(sorted(self.depth_sources)), " and ".join(sorted(sources)),
            )  # fmt: skip


def depth_size_of(size: int) -> int:
    """Side of the depth maps that a network of this ``size`` gets: its own, but no less than shards have. Reliability, heading and
    the branch beside the maps read depth at the keypoints, at full resolution; the convolutions take every so manieth pixel of it."""
    return max(size, MAP_SIZE)
