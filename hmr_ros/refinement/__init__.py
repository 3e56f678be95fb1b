"""A regressed pose bent a little, so that its joints lie on the detected ones."""

from hmr_ros.refinement.config import RefinementConfig
from hmr_ros.refinement.refine import Refiner

__all__ = ["RefinementConfig", "Refiner"]
