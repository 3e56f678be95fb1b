"""``hmr_ros.training.evaluate``: the error measures of metrics.py under the name that other code relies on."""

from hmr_ros.training.metrics import auroc, mpjpe, pa_mpjpe

__all__ = ["auroc", "mpjpe", "pa_mpjpe"]
