"""compressedDepth, encoded here as compressed_depth_image_transport's codec.cpp does; and what a picture promises, before it is decoded."""

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from hmr_ros.io.compressed_depth import compressed_depth_from_message
from hmr_ros.io.decode import refuse_too_many_pixels
from hmr_ros.io.encoded import picture_size

DEPTH = np.random.default_rng(0).uniform(0.5, 9.0, (24, 32)).astype(np.float32)
DEPTH[3:5, 4:9] = np.nan


def message(format, png, a=0.0, b=0.0):
    return SimpleNamespace(format=format, data=struct.pack("<iff", 0, a, b) + png)


def png_of(values):
    return cv2.imencode(".png", values)[1].tobytes()


def test_millimetres_come_back_exactly():
    values = np.nan_to_num(1000 * DEPTH).astype(np.uint16)
    for format in ("16UC1; compressedDepth", "16UC1; compressedDepth png"):
        np.testing.assert_allclose(compressed_depth_from_message(message(format, png_of(values))), values / 1000, rtol=1e-6)


def test_metres_come_back_as_fine_as_their_quantisation():
    quantisation, farthest = 100.0, 10.0  # defaults of the transport
    a = quantisation * (quantisation + 1)
    b = 1 - a / farthest
    with np.errstate(invalid="ignore"):
        inverse = np.where(np.isfinite(DEPTH), a / DEPTH + b, 0).astype(np.uint16)
    depth = compressed_depth_from_message(message("32FC1; compressedDepth png", png_of(inverse), a, b))
    known = np.isfinite(DEPTH)
    assert (depth[~known] == 0).all() and depth.dtype == np.float32
    assert np.abs(depth - DEPTH)[known].max() < 9.0**2 / a * 1.1  # one step of the inverse depth


@pytest.mark.parametrize("made, words", [
    (message("16UC1; compressedDepth rvl", b"x"), "format"),
    (message("bgr8; jpeg compressed bgr8", b"x"), "format"),
    (message("16UC1; compressedDepth png", b""), "no PNG after 12 bytes"),
    (message("16UC1; compressedDepth png", png_of(np.zeros((4, 4), np.uint8))), "16 bits"),
    (message("16UC1; compressedDepth png", png_of(np.zeros((20, 20), np.uint16))[:-20]), "whole PNG"),
    (message("32FC1; compressedDepth png", png_of(np.zeros((4, 4), np.uint16)), np.nan, 1.0), "quantisation"),
    (message("16UC1; compressedDepth png", png_of(np.zeros((40, 40), np.uint16))), "40x40 pixels, expected at most 1000"),
])  # fmt: skip
def test_what_is_none_is_named(made, words):
    with pytest.raises(ValueError, match=words):
        compressed_depth_from_message(made, max_pixels=1000)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tiff"])
def test_a_picture_promises_its_size(suffix):
    data = cv2.imencode(suffix, np.zeros((30, 50, 3), np.uint8))[1].tobytes()
    assert picture_size(data) == (50, 30) and picture_size(data[:7]) is None and picture_size(b"") is None


def test_a_picture_that_promises_too_much_is_refused_before_it_is_decoded():
    bomb = bytearray(png_of(np.zeros((2, 2), np.uint8)))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    import zlib

    bomb[29:33] = struct.pack(">I", zlib.crc32(bomb[12:29]))
    with pytest.raises(ValueError, match="compressed image has .* pixels, expected at most 50000000"):
        refuse_too_many_pixels(SimpleNamespace(format="png", data=bytes(bomb)), 50_000_000)
    with pytest.raises(ValueError, match="image has 8000x8000 pixels"):
        refuse_too_many_pixels(SimpleNamespace(width=8000, height=8000), 50_000_000)
    refuse_too_many_pixels(SimpleNamespace(width=8000, height=8000), 0)
