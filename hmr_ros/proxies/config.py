"""Every threshold of the embedded extractor: meaning, unit, source."""

from __future__ import annotations

from dataclasses import dataclass

from hmr_ros.estimate import BodyEstimate


@dataclass(frozen=True)
class EmbeddedConfig:
    """Sources: [vtest] tuned on pedestrians of OpenCV's vtest.avi and on photos of a few people; [paper] Yan, Zhong and Hua 2024;
    [MediaPipe] its published pipeline; [rendered] measured on the frozen test split of rendered people. Scores, confidences and
    visibilities are probabilities as the networks give them, without unit.
    """

    # keypoints
    confident: float = BodyEstimate.confident  # 0.3, of a merged keypoint that counts as seen: there precision (96.5 %) and recall (95.4 %)
    # of keypoints within 10 % of the person's diagonal balance [rendered]
    min_confidence: float = 0.2  # of a keypoint that shapes an RoI, a crop or a similarity [vtest]
    min_hip_confidence: float = 0.1  # of hips that centre an RoI: a guess below the image border beats the box's centre [vtest]

    # detections of MoveNet
    noise_score: float = 0.13  # below, a detection is noise [vtest]
    min_agreed_score: float = 0.14  # of a person whom BlazePose confirms [vtest]
    min_score: float = 0.2  # of a person whom MoveNet alone detects [vtest]
    min_side: float = 4.0  # px: boxes that are narrower or lower are no person
    small_person: float = 0.4  # of the image height: smaller people call for the 512² pass [vtest]
    large_person: float = 0.45  # of the image's longer side: larger people are taken from the 256² pass, which keeps them whole [vtest]
    window: float = 0.6  # of the image's longer side: of each of the two overlapping windows for crowds
    neighbourhood: float = 1.6  # of a person's crop: the window in which MoveNet finds the person again in the next frame [vtest]

    # two detections of one person
    duplicate_similarity: float = 0.5  # object keypoint similarity (COCO) above which they are duplicates [vtest]
    duplicate_overlap: float = 0.4  # IoU of boxes, the same for detections of different passes [vtest]
    duplicate_containment: float = 0.6  # of the smaller box, the same where fewer than three keypoints can be compared [vtest]

    # BlazePose
    min_presence: float = 0.5  # of a person in the RoI [MediaPipe]
    roi_reach: float = 2.5  # side of the RoI, in distances from the hips to the farthest confident keypoint [MediaPipe]
    roi_torso: float = 1.5  # the least such distance, in lengths of the torso
    border: float = 0.02  # of the image height: who comes nearer to the upper or lower border is truncated

    # the merge of both
    max_disagreement: float = 0.08  # of the person's diagonal: median distance beyond which BlazePose sees somebody else [vtest]
    disagreement_confidence: float = 0.3  # of keypoints that are compared for it, in both networks
    agreement: float = 0.05  # of the person's diagonal: keypoints nearer than that are averaged [vtest]
    blazepose_weight: float = 0.5  # MoveNet's confidence of a visible joint is 0.3-0.8 where BlazePose's is 0.9-1 [vtest]
    conflict: float = 0.7  # factor on the confidence of a keypoint about which both disagree
    doubt: float = 0.3  # factor on visibility and presence of landmarks that are somebody else's

    # maps
    crop_enlargement: float = 1.2  # of the box around the confident keypoints [paper]
    size: int = 128  # px: side of mask and depth

    flip: bool = False  # flip test-time augmentation: a second BlazePose pass on the flipped RoI
