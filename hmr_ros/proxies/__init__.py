"""What the networks see of a person: 2D keypoints with confidences, a mask and a depth map.

    person.py      PersonProxies, the core that every extractor fills; BlazePoseRecord beside it; the ProxyExtractor protocol
    registry.py    extractors by name, and their identity
    embedded.py    the default extractor: movenet.py and blazepose.py merged; config.py has its thresholds
    torch_modules/ both networks as torch modules, for backends that do not run the model files
    crops.py       RoIs, boxes and crops          similarity.py  non-maximum suppression
    depth.py       T_IQR, coarse and sensor depth, depth along bones          heatmaps.py  keypoints as Gaussians
"""

from hmr_ros.proxies.person import EMBEDDING_COUNT, FEATURE_MAP, BlazePoseRecord, PersonProxies, ProxyExtractor, flipped

__all__ = ["EMBEDDING_COUNT", "FEATURE_MAP", "BlazePoseRecord", "PersonProxies", "ProxyExtractor", "flipped"]
