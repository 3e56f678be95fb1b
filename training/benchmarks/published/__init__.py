"""``hmr-ros eval 3dpw`` and ``h36m``."""
