"""Proxies of any recording: pictures, videos, bags, data sets."""
