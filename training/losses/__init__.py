"""What is minimised: self-consistency between proxies and their re-projection (consistency), and distance to a known body (body)."""
