"""Where training data comes from: pictures or renderings, stored as proxies with the truth, where known, beside them."""
