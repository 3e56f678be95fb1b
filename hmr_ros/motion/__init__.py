"""Recorded people over time, and the files that animation and learning tools read."""
