"""Human mesh recovery for ROS 2: from a camera image to the 3D bodies of the people in it.

    from hmr_ros import HumanMeshEstimator
    bodies = HumanMeshEstimator.from_default()(image_bgr)      # Bodies: a list of BodyEstimate

Importing this package loads neither torch nor rclpy; the names above are resolved on first use.
"""

__version__ = "0.1.0"
__all__ = ["Bodies", "BodyEstimate", "HumanMeshEstimator"]


def __getattr__(name):
    if name in __all__:
        from hmr_ros import estimator

        return getattr(estimator, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return sorted([*globals(), *__all__])
