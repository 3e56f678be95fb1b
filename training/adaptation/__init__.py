"""Adaptation of the lifter to one's own camera, without labels."""
