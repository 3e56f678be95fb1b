"""Readers of published data sets and annotations, which hand on records."""
