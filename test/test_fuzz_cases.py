"""What the fuzz targets (test/fuzz, `make fuzz`) and a look at their code have found, as cases; and the targets themselves, on their seeds."""

import resource
import subprocess
import sys
import time
import zipfile
import zlib
from array import array
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from fuzz.fields import Fields, packed, word
from fuzz.targets import TARGETS
from hmr_ros.body import inert_pickle
from hmr_ros.body.inert_pickle import PickleRefused
from hmr_ros.body.smpl_file import BodyFileError, read_smpl_file
from hmr_ros.camera import Camera
from hmr_ros.geometry import Intrinsics
from hmr_ros.io.decode import compressed_image_from_message
from hmr_ros.io.encoded import imdecode


@pytest.mark.parametrize("name", TARGETS)
def test_every_seed_of_a_target_is_read_and_its_halves_do_no_harm(name):
    target = TARGETS[name]
    seeds = target.seeds()
    assert len(seeds) >= 4
    for seed in seeds:
        assert target.read(seed), seed.hex()
        target.read(seed[: len(seed) // 2])
    target.read(b"")


# Inputs that crashed: target, bytes.
FOUND = [
    # fx of 9e304: projected pixels were infinite
    # k1 of -129433: the image folds back at once, and projected pixels were NaN
    ("cameras", "0200000000000000407f400000000000407f40f600000000f873400000000000f06d40089a0000999999ffc099b9"),
    ("cameras", "000100ff0000000000407f400000000000407f400000000000f873400000000000f8734000"),
    # a shape coefficient of float64 that is infinite in float32
    ("smpl_npz", packed(1, 3, word(200), 7, b"\xff\xff\xff\xff\xff\xff\xef\x7f").hex()),
]


@pytest.mark.parametrize("name, found", FOUND)
def test_found_inputs_are_refused(name, found):
    assert TARGETS[name].read(bytes.fromhex(found)) is False


def test_edits_are_what_they_say():
    assert Fields(b"").edited(b"abc") == b"abc"
    assert Fields(packed(16, word(1), 0)).edited(b"abc") == b"a"
    assert Fields(packed(1, word(1), 0)).edited(b"abc") == b"ac"
    assert Fields(packed(2, word(3), 1, b"xy")).edited(b"abc") == b"abcxy"
    assert Fields(packed(3, word(0), 1, b"xy")).edited(b"abc") == b"xyc"


# --- bombs: a few bytes that ask for gigabytes or hours --------------------------------------------------------------

SECONDS, MEGABYTES = 20, 1000


def doubled(build: bytes, depth: int) -> bytes:
    """The value on the stack within a value that holds it twice, ``depth`` times: 2^depth values of three bytes a time."""
    return (b"2" + build) * depth  # "2" is the instruction DUP


TUPLES = b"K\x01" + doubled(b"\x86", 60)
BOMBS = {
    "memo index of 2^31, 34 GB in the machine of C": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "bytearray of 2^40 bytes": b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".",
    "bytearray of 2^64 bytes": b"\x80\x05\x96" + b"\xff" * 8 + b".",
    "key": b"\x80\x02}" + TUPLES + b"Ns.",
    "keys": b"\x80\x02}(" + TUPLES + b"Nu.",
    "dict": b"\x80\x02(" + TUPLES + b"Nd.",
    "set": b"\x80\x04\x8f(" + TUPLES + b"\x90.",
    "frozenset": b"\x80\x04(" + TUPLES + b"\x91.",
    "persistent id": b"\x80\x02" + TUPLES + b"Q.",
    "encoding": b"\x80\x02c_codecs\nencode\nX\x01\0\0\0a" + TUPLES + b"\x86R.",
    "rebuilt class": b"\x80\x02ccopy_reg\n_reconstructor\n" + TUPLES + b"\x85R.",
    "lists of one list": b"\x80\x02]" + doubled(b"\x86", 18) + b".",
    "lists of one list, deeper than is read": b"\x80\x02]" + doubled(b"\x86", 60) + b".",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_pickle_cannot_fill_the_memory_or_take_hours(bomb):
    """In a process of its own, since it would take this one with it."""
    code = (
        "import resource, sys, time; from hmr_ros.body import inert_pickle\n"
        "before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()\n"
        "try: inert_pickle.plain(inert_pickle.load(bytes.fromhex(sys.argv[1])))\n"
        "except inert_pickle.PickleRefused as error: assert len(str(error)) < 2000, len(str(error))\n"
        "else: assert sys.argv[2] in ('lists of one list', 'memo index of 2^31, 34 GB in the machine of C'), 'read'\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, time.monotonic() - start)\n"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", code, BOMBS[bomb].hex(), bomb], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    kilobytes, seconds = map(float, ended.stdout.split())
    assert kilobytes < 1000 * MEGABYTES and seconds < SECONDS


def test_a_scalar_without_bytes_is_refused():
    """It was an IndexError."""
    with pytest.raises(PickleRefused, match="not a readable pickle"):
        inert_pickle.plain(inert_pickle.load(b"\x80\x02cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\nX\x02\0\0\0f8\x85RU\x00tR."))


@pytest.mark.parametrize(
    "header, message",
    [
        ({"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)}, "array 'v_template' has 24 bytes, expected 24000000000000"),
        ({"descr": "<f8", "fortran_order": False, "shape": (2,)}, "array 'v_template' has 24 bytes, expected 16"),
        ({"descr": "|O", "fortran_order": False, "shape": (3,)}, "array 'v_template' holds Python objects"),
        ({"descr": "<f8", "fortran_order": False}, "damaged .npz archive"),
        ({"descr": "x", "fortran_order": False, "shape": (3,)}, "damaged .npz archive"),
    ],
)
def test_an_array_cannot_claim_more_than_its_file_holds(tmp_path, header, message):
    """numpy reserves what the header says before it reads: a MemoryError, or a machine that swaps."""
    text = repr(header).encode().ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "body.npz", "w") as archive:
        archive.writestr("v_template.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + bytes(24))
    with pytest.raises(BodyFileError, match=message):
        read_smpl_file(tmp_path / "body.npz")


def test_a_zip_of_zeros_is_refused_by_its_size(tmp_path):
    with zipfile.ZipFile(tmp_path / "body.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("v_template.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (23_000_000, 3)})
        for _ in range(23 * 3):
            file.write(bytes(8_000_000))
    assert (tmp_path / "body.npz").stat().st_size < 10**6
    with pytest.raises(BodyFileError, match="array 'v_template' has 552000000 bytes.* and at most 536870912"):
        read_smpl_file(tmp_path / "body.npz")


@pytest.mark.parametrize("length", [0x7FFFFFF0, 0xB3FD2DF2, 0xFFFFFFF0])
def test_a_png_cannot_claim_a_chunk_of_gigabytes(length):
    """45 bytes took OpenCV 4 GB and 6 seconds."""
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", bytes.fromhex("00000004000000040802000000")) + length.to_bytes(4, "big") + b"IDATxxxx"
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(ValueError, match="cannot be decoded"):
        compressed_image_from_message(SimpleNamespace(format="png", data=array("B", png)))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000 and time.monotonic() - start < 1


def test_a_cut_png_is_still_read_as_far_as_it_goes():
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    raw = b"".join(b"\0" + row.tobytes() for row in picture[..., ::-1])
    chunks = [_chunk(b"IHDR", bytes.fromhex("00000040000000400802000000")), _chunk(b"IDAT", zlib.compress(raw, 0)), _chunk(b"IEND", b"")]
    png = np.frombuffer(b"\x89PNG\r\n\x1a\n" + b"".join(chunks), np.uint8)
    np.testing.assert_array_equal(imdecode(png, cv2.IMREAD_COLOR), picture)
    cut = png[: len(png) * 3 // 4]
    assert (expected := cv2.imdecode(cut, cv2.IMREAD_COLOR)) is None or np.array_equal(imdecode(cut, cv2.IMREAD_COLOR), expected)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


@pytest.mark.parametrize("values", [(1e7, 500, 320, 240), (500, 1e7, 320, 240), (500, 500, -1e7, 240), (1e-9, 500, 320, 240)])
def test_intrinsics_beyond_every_lens_are_no_camera(values):
    with pytest.raises(ValueError, match="below 1e.06"):
        Camera(Intrinsics(*values))
    with pytest.raises(ValueError, match="below 1e.06"):
        Camera(Intrinsics(500, 500, 320, 240), "plumb_bob", (1e7, 0, 0, 0, 0))
