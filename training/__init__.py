"""Learning: data sets, training and evaluation. Installed as ``hmr_ros.training``; imports everything but ``ros``."""
