"""cv2.imdecode with bounds, and whether an encoded picture is whole: what OpenCV does not find out, or too late."""

from __future__ import annotations

import io
import warnings

import cv2
import numpy as np

# Bytes that a chunk may claim beyond the end of its PNG: those of a cut picture in one chunk are still read as far as they go.
LARGEST_CUT_CHUNK = 2**26


def imdecode(data: np.ndarray, flags: int) -> np.ndarray | None:
    """The picture in uint8 ``data`` (N,) by ``flags`` of cv2.imread; None where there is none, or OpenCV cannot decode it."""
    if not data.size or _claims_too_much(data):
        return None
    try:
        return cv2.imdecode(data, flags)
    except cv2.error:  # a size beyond OpenCV's limit, say
        return None


def what_is_missing(data: bytes) -> str:
    """Why an encoded picture is not whole, in words; "" for a whole one. Decoders fill the rest of a cut JPEG or PNG with grey."""
    if data.startswith(b"\x89PNG"):
        return "" if b"IEND" in data[-64:] or b"IEND" in data else "the PNG is cut, its end is missing"
    if not data.startswith(b"\xff\xd8"):
        return ""
    at = 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":  # segments before the scan may hold a thumbnail of their own
        at += 2 + max(int.from_bytes(data[at + 2 : at + 4], "big"), 2)
    return "" if data.find(b"\xff\xd9", at) >= 0 else "the JPEG is cut, its end is missing"


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a JPEG, PNG or TIFF promises, read from its header by Pillow, which decodes nothing; None where it cannot."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            return Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "TIFF")).size
    except Image.DecompressionBombError:
        return 2**31, 2**31
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, OverflowError):
        return None


def _claims_too_much(data: np.ndarray) -> bool:
    """A PNG with a chunk that is far longer than the file: OpenCV 5 clears up to 4 GB for it, in seconds, before it finds out."""
    if data[:4].tobytes() != b"\x89PNG":
        return False
    at = 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4].tobytes(), "big")
        if length > len(data) - at and length > LARGEST_CUT_CHUNK:
            return True
        at += 12 + length
    return False
