"""Training of the lifter, with the truth of rendered people."""
