"""Training of the adversarial pose prior."""
