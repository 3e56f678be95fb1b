"""What is learned: proxies as vectors (features) and the network that lifts them to body parameters (lifter).

The paper's ResNet-18, its reliability network and the adversarial pose prior belong beside them.
"""
