"""Fields of other packages' messages as they are defined there, and strict stand-ins made of them where these packages are not installed.

Field names and types are those of get_fields_and_field_types(); test_other_packages.py checks them against the packages wherever they can be imported.
"""

import importlib
from types import SimpleNamespace

FIELDS = {
    "tf2_msgs": {"TFMessage": {"transforms": "sequence<geometry_msgs/TransformStamped>"}},
    "hri_msgs": {
        "IdsList": {"header": "std_msgs/Header", "ids": "sequence<string>"},
        "NormalizedRegionOfInterest2D": {"header": "std_msgs/Header", "xmin": "float", "ymin": "float", "xmax": "float", "ymax": "float", "c": "float"},
        "NormalizedPointOfInterest2D": {"x": "float", "y": "float", "c": "float"},
        "Skeleton2D": {"header": "std_msgs/Header", "skeleton": "hri_msgs/NormalizedPointOfInterest2D[18]"},
    },
    "vision_msgs": {
        "Detection3DArray": {"header": "std_msgs/Header", "detections": "sequence<vision_msgs/Detection3D>"},
        "Detection3D": {"header": "std_msgs/Header", "results": "sequence<vision_msgs/ObjectHypothesisWithPose>",
                        "bbox": "vision_msgs/BoundingBox3D", "id": "string"},
        "ObjectHypothesisWithPose": {"hypothesis": "vision_msgs/ObjectHypothesis", "pose": "geometry_msgs/PoseWithCovariance"},
        "ObjectHypothesis": {"class_id": "string", "score": "double"},
        "BoundingBox3D": {"center": "geometry_msgs/Pose", "size": "geometry_msgs/Vector3"},
    },
}  # fmt: skip
PLAIN = {"string": str, "float": float, "double": float}


def package(name):
    """``name``.msg itself where it is installed, otherwise its stand-in."""
    try:
        return importlib.import_module(f"{name}.msg")
    except ImportError:
        return stand_in(name)


def stand_in(name):
    """An object with classes that take these fields, of these types, as keywords; anything else is an error."""
    made = SimpleNamespace()
    for kind, fields in FIELDS[name].items():
        setattr(made, kind, type(kind, (_Message,), {"fields": fields, "classes": made}))
    return made


class _Message:
    def __init__(self, **values):
        assert values.keys() <= self.fields.keys(), f"{type(self).__name__} has no {values.keys() - self.fields.keys()}"
        for field, kind in self.fields.items():
            value = values.get(field, self._default(kind))
            self._check(field, kind, value)
            setattr(self, field, value)

    def _default(self, kind):
        if kind.startswith("sequence<"):
            return []
        return PLAIN[kind]() if kind in PLAIN else self._class(kind.partition("[")[0])()

    def _check(self, field, kind, value):
        one, _, count = kind.removeprefix("sequence<").removesuffix(">").removesuffix("]").partition("[")
        several = kind.startswith("sequence<") or count
        assert isinstance(value, list) if several else True, f"{field} is {value!r}, expected a list"
        assert not count or len(value) == int(count), f"{field} has {len(value)} elements, expected {count}"
        for item in value if several else [value]:
            assert isinstance(item, self._class(one)), f"{field} is {item!r}, expected {kind}"

    def _class(self, kind):
        if kind in PLAIN:
            return PLAIN[kind]
        where, _, name = kind.partition("/")
        return getattr(self.classes, name, None) or getattr(importlib.import_module(f"{where}.msg"), name)
