"""The paper's own proxies: 2D joints by Keypoint R-CNN, depth by a monocular depth network or from files. The user brings the weights.

    config.py           files that the user brings, thresholds          extractor.py   `extractor: paper`
    keypoint_rcnn.py    image → people; network.py has its layers, roi.py what lies between them (RoIAlign, boxes, suppression, decoding)
    monocular_depth.py  Depth Anything V2 through `transformers`          hdnet.py       maps that HDNet has computed elsewhere
"""
