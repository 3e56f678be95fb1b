"""The default regressor: proxies as a vector and BlazePose feature maps → SMPL parameters (Martinez et al. 2017)."""
