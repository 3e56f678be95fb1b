"""Everything that makes and judges networks; installed as ``hmr_ros.training``. Uses the whole package but ``ros``."""
