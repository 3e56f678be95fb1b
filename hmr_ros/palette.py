"""Colours of people and of their sides, for every picture and marker: RGB of 8 bits, and as OpenCV and ROS want them."""

from __future__ import annotations

from collections.abc import Sequence

from hmr_ros.skeleton import SMPL_FROM_LIMBS

RGB = tuple[int, int, int]

# Distinguishable with the common colour-vision deficiencies (Okabe and Ito 2008), without their black.
PEOPLE: tuple[RGB, ...] = ((86, 180, 233), (230, 159, 0), (0, 158, 115), (204, 121, 167), (240, 228, 66), (213, 94, 0), (0, 114, 178))
RELIABILITY: tuple[RGB, ...] = ((213, 94, 0), (240, 228, 66), (0, 158, 115))  # 0, 0.5, 1: vermilion, yellow, green of the same
LEFT, RIGHT, MIDDLE = (80, 160, 255), (255, 130, 60), (200, 200, 200)  # bones of the person's left, right, and between


def person_number(id: str, index: int) -> int:
    """What colour and marker of a person are chosen by: the id, read in base 36, where there is one, else the index in the list of bodies."""
    return int(id, 36) if id else index


def person_colour(index: int) -> RGB:
    """The colour of the person with this number; they repeat after ``len(PEOPLE)``."""
    return PEOPLE[index % len(PEOPLE)]


def bgr(colour: RGB) -> tuple[int, int, int]:
    """For OpenCV's pictures."""
    red, green, blue = colour
    return blue, green, red


def unit_rgb(colour: RGB) -> tuple[float, float, float]:
    """For std_msgs/ColorRGBA: from 0 to 1."""
    red, green, blue = colour
    return red / 255, green / 255, blue / 255


def joint_colours(reliability: Sequence[float]) -> list[RGB]:
    """Colours of SMPL's 24 joints by the reliability (12) of the limbs; grey where a joint has none of its own: trunk, head, hands, feet."""
    return [MIDDLE if limb is None else reliability_colour(float(reliability[limb])) for limb in SMPL_FROM_LIMBS]


def reliability_colour(value: float) -> RGB:
    """Of a reliability in [0, 1]: vermilion, yellow, green."""
    place = 2 * min(max(value, 0.0), 1.0)
    low = min(int(place), 1)
    red, green, blue = (round(a + (place - low) * (b - a)) for a, b in zip(RELIABILITY[low], RELIABILITY[low + 1]))
    return red, green, blue
