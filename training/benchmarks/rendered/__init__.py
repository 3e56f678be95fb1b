"""``hmr-ros eval rendered``: exact truth, with baselines."""
