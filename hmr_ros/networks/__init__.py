"""What is learned: proxies as vectors (features) and the network that lifts them to body parameters (lifter).

The adversarial pose prior (pose_prior) is a frozen decoder of poses; the paper's ResNet-18 and its reliability network belong beside them.
"""
