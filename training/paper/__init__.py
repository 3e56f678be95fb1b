"""Self-supervised training of the paper's networks, its ablation and figures."""
