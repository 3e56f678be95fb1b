"""The networks of Yan, Zhong and Hua (AAAI 2024): ResNet-18 on heatmaps and depth, reliability, pose prior."""
