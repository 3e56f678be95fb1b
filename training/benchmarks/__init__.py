"""Scored data sets: rendered people, and the published benchmarks that the user brings."""
