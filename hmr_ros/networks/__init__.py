"""What is learned: the lifter from proxies as a vector (features), and the paper's ResNet-18 from heatmaps and depth (maps) with
its reliability network and its frozen pose prior.
"""
