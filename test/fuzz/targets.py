"""One fuzz target per reader. Each takes any bytes, has the reader read them, and says whether it did (True) or refused (False).

A reader returns something valid or raises what its docstring names, mostly ValueError; everything else, an invalid result included, is a
crash. Seeds are small valid inputs, made by code. `make fuzz` runs them under atheris (run.py), test_fuzz_cases.py replays what was found.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
import zlib
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import cv2
import numpy as np
import scipy.sparse

from fuzz.fields import Fields, packed, word
from hmr_ros.body import inert_pickle
from hmr_ros.body.smpl_file import read_smpl_file
from hmr_ros.files import save_checkpoint
from hmr_ros.io.bags import image_messages
from hmr_ros.io.decode import DEPTH_ENCODINGS, ENCODINGS, compressed_image_from_message, depth_from_message, image_from_message, read_picture
from hmr_ros.networks.checkpoints import EMBEDDED, load_lifter, load_resnet18
from hmr_ros.networks.lifter.features import FEATURE_LAYOUT
from hmr_ros.networks.lifter.net import Lifter
from hmr_ros.networks.paper.net import RegressorConfig, Resnet18Regressor
from hmr_ros.networks.paper.prior import PosePrior, load_pose_prior
from hmr_ros.io.camera_info import camera_from_message
from smpl_formats import Ch, Python2Writer, Select, small_model, written_with_chumpy

REFUSED = (ValueError, FileNotFoundError)  # what the readers' docstrings name


class Target(NamedTuple):
    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes], bool]


def _picture_is_valid(picture: np.ndarray) -> None:
    assert isinstance(picture, np.ndarray) and picture.dtype == np.uint8, picture
    assert picture.ndim == 3 and picture.shape[2] == 3 and picture.size, picture.shape


@cache
def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="fuzz-")


def _file(name: str, content: bytes) -> Path:
    path = Path(_folder().name, name)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


# ---- encoded pictures -----------------------------------------------------------------------------------------------

FORMATS = ("jpeg", "png", "rgb8; jpeg compressed bgr8", "mono16; png compressed ", "16UC1; png compressed ", "tiff", "rgb16; tiff compressed rgb16",
           "16UC1; compressedDepth png", "")  # fmt: skip


@cache
def _encoded() -> dict[str, bytes]:
    """A picture of 36 x 33 pixels, the least that JPEG 2000 takes, in every format that OpenCV writes here."""
    rng = np.random.default_rng(0)
    colour = cv2.resize(rng.integers(0, 256, (3, 4, 3), np.uint8), (36, 33))
    deep, grey, clear = colour.astype(np.uint16) * 257, colour[..., 0], cv2.cvtColor(colour, cv2.COLOR_BGR2BGRA)
    pictures = {
        "a.jpg": colour, "grey.jpg": grey, "a.png": colour, "grey.png": grey, "deep.png": deep, "clear.png": clear, "a.tiff": colour,
        "deep.tiff": deep, "a.webp": colour, "a.bmp": colour, "a.ppm": colour, "deep.pgm": deep[..., 0], "a.jp2": colour, "a.gif": colour,
        "a.hdr": colour.astype(np.float32), "a.pfm": colour.astype(np.float32), "a.ras": colour,
    }  # fmt: skip
    encoded = {}
    for name, picture in pictures.items():
        try:
            written, content = cv2.imencode(Path(name).suffix, picture)
        except cv2.error:  # an OpenCV without this format
            continue
        if written:
            encoded[name] = content.tobytes()
    return encoded


def with_checksums(png: bytes) -> bytes:
    """The chunks of a PNG with the checksums they should have; without them no edit passes the decoder's first test."""
    result, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        chunk = png[at + 4 : at + 8 + length]
        result += png[at : at + 4] + chunk + zlib.crc32(chunk).to_bytes(4, "big")
        at += 12 + length
    return bytes(result) + png[at:]


def _picture_of(fields: Fields) -> bytes:
    """Raw bytes, or one of the valid pictures with edits."""
    names = list(_encoded())
    chosen = fields.byte()
    content = fields.rest() if chosen == 255 else fields.edited(_encoded()[names[chosen % len(names)]])
    return with_checksums(content) if content[:4] == b"\x89PNG" else content


def read_compressed(data: bytes) -> bool:
    fields = Fields(data)
    format, bit_depth = fields.choice(FORMATS), 8 + fields.byte() % 9
    message = SimpleNamespace(format=format, data=array("B", _picture_of(fields)))
    try:
        picture = compressed_image_from_message(message, bit_depth=bit_depth)
    except REFUSED:
        return False
    _picture_is_valid(picture)
    return True


def compressed_seeds() -> list[bytes]:
    names = list(_encoded())
    return [packed(int(name.endswith(".png")), 8, names.index(name)) for name in names if name.endswith(("png", "jpg"))]


def read_picture_file(data: bytes) -> bool:
    try:
        picture = read_picture(_file("picture", _picture_of(Fields(data))))
    except REFUSED:
        return False
    _picture_is_valid(picture)
    return True


def picture_file_seeds() -> list[bytes]:
    return [packed(index) for index, name in enumerate(_encoded()) if not name.endswith((".hdr", ".pfm"))]  # floats are refused


# ---- raw images and cameras -----------------------------------------------------------------------------------------

IMAGE_ENCODINGS = (*ENCODINGS, *DEPTH_ENCODINGS, "64FC1", "8UC7", "", "\udce9")


def read_image(data: bytes) -> bool:
    fields = Fields(data)
    encoding, bigendian, large, bit_depth = fields.choice(IMAGE_ENCODINGS), fields.byte() % 2, fields.byte(), 8 + fields.byte() % 9
    width, height, step = (fields.word() if large >> bit & 1 else fields.byte() for bit in range(3))
    content = fields.rest()
    if large & 128:  # as long as it should be, up to a limit
        content = (content or b"\x55").ljust(min(height * step, 1 << 16), (content or b"\x55")[-1:])
    message = SimpleNamespace(encoding=encoding, is_bigendian=bigendian, width=width, height=height, step=step, data=array("B", content))
    read = False
    try:
        picture = image_from_message(message, bit_depth=bit_depth)
        _picture_is_valid(picture)
        assert picture.shape[:2] == (height, width), picture.shape
        read = True
    except REFUSED:
        pass
    try:
        depth = depth_from_message(message)
        assert depth.dtype == np.float32 and depth.shape == (height, width), (depth.dtype, depth.shape)
        assert np.isfinite(depth).all() and (depth >= 0).all()
        read = True
    except REFUSED:
        pass
    return read


def image_seeds() -> list[bytes]:
    known = [*ENCODINGS, *DEPTH_ENCODINGS]
    return [packed(IMAGE_ENCODINGS.index(name), index % 2, 128, 8, 4, 3, 4 * 8 + 2, b"\x01\x40\x7f") for index, name in enumerate(known)]


LENSES = ("", "plumb_bob", "rational_polynomial", "equidistant", "fisheye", "none")
PIXELS = np.array([(x, y) for x in (-1e3, 0, 320, 639, 1e9) for y in (0, 240.5, 479, -1e9)])
POINTS = np.array([(x, y, z) for x in (-2.0, 0, 1) for y in (-1.0, 0, 30) for z in (0.1, 3, 100)])


def read_camera(data: bytes) -> bool:
    fields = Fields(data)
    info = SimpleNamespace(distortion_model=fields.choice(LENSES), width=0, height=0, binning_x=0, binning_y=0)
    rectified, sizes = fields.byte() % 2 == 1, fields.byte()
    info.width, info.height, width, height = (fields.word() % 4096 if sizes >> bit & 1 else (640, 480)[bit % 2] for bit in range(4))
    if sizes & 16:
        info.binning_x, info.binning_y = fields.word(), fields.word()
    info.roi = SimpleNamespace(**dict.fromkeys(("x_offset", "y_offset", "width", "height"), 0), do_rectify=False)
    if sizes & 32:
        info.roi = SimpleNamespace(**{name: fields.word() for name in ("x_offset", "y_offset", "width", "height")}, do_rectify=True)
    fx, fy, cx, cy = (fields.number() for _ in range(4))
    info.k, info.p = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0], [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    info.r = np.eye(3).ravel().tolist()
    info.d = [fields.number() for _ in range(fields.byte() % 16)]
    try:
        camera = camera_from_message(info, max(width, 1), max(height, 1), rectified)
        if camera is None:
            return False
        directions, known = camera.directions(PIXELS)
        pixels = camera.project(POINTS)
    except REFUSED:
        return False
    assert directions.shape == PIXELS.shape and known.shape == PIXELS.shape[:1] and known.dtype == bool
    assert np.isfinite(directions).all(), directions
    assert pixels.shape == (len(POINTS), 2) and np.isfinite(pixels).all(), pixels
    return True


def camera_seeds() -> list[bytes]:
    intrinsics, seeds = (500.0, 500.0, 319.5, 239.5), []
    for lens, coefficients in ((0, ()), (1, (-0.3, 0.1, 0.001, -0.001, 0.0)), (2, (0.1,) * 8), (3, (0.01, -0.02, 0.003, 0.0))):
        for rectified in (0, 1):
            seeds.append(packed(lens, rectified, 0, *intrinsics, len(coefficients), *coefficients))
    return [*seeds, packed(1, 0, 16 | 32, *[word(n) for n in (2, 2, 0, 0, 640, 480)], *intrinsics, 0)]


# ---- body models ----------------------------------------------------------------------------------------------------


def _body_is_valid(arrays: dict[str, np.ndarray]) -> None:
    vertices = len(arrays["v_template"])
    for key, shape in {"v_template": (vertices, 3), "shapedirs": (vertices, 3, 10), "weights": (vertices, 24), "J_regressor": (24, vertices)}.items():
        assert arrays[key].dtype == np.float32 and arrays[key].shape == shape and np.isfinite(arrays[key]).all(), key
    assert arrays["f"].dtype == np.int32 and arrays["f"].min() >= 0 and arrays["f"].max() < vertices
    assert "metadata" not in arrays or isinstance(json.loads(str(arrays["metadata"]))["name"], str)


@cache
def _small() -> dict[str, np.ndarray]:
    return small_model(posedirs=np.zeros((60, 3, 207), np.float32), metadata=np.array('{"name": "small", "regions": ["all"]}'))


@cache
def _members() -> dict[str, bytes]:
    members = {}
    for key, value in _small().items():
        np.save(buffer := io.BytesIO(), value)
        members[f"{key}.npy"] = buffer.getvalue()
    return members


@cache
def _npz() -> bytes:
    return _zipped(_members())


def _zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(buffer := io.BytesIO(), "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def read_npz(data: bytes) -> bool:
    """The first byte says what the rest edits: the archive, or one of the arrays in it (whose checksum is then right)."""
    fields, members = Fields(data), _members()
    chosen = fields.byte()
    if chosen % 16 == 15:
        content = fields.edited(_npz())
    else:
        name = list(members)[chosen % 16 % len(members)]
        content = _zipped(members | {name: fields.edited(members[name])}, zipfile.ZIP_DEFLATED if chosen & 16 else zipfile.ZIP_STORED)
    try:
        _body_is_valid(read_smpl_file(_file("body.npz", content)))
    except REFUSED:
        return False
    return True


def npz_seeds() -> list[bytes]:
    return [packed(chosen) for chosen in (*range(len(_members())), 15, 16)]


@cache
def _pickles() -> list[bytes]:
    """The same model as chumpy and Python 2 write it, and with every sparse format."""
    model = {key: value for key, value in _small().items() if key not in ("metadata", "posedirs")}
    official = model | {
        "v_template": Ch(model["v_template"]), "J_regressor": scipy.sparse.csc_matrix(model["J_regressor"]), "bs_style": "lbs",
        "weights": Select(model["weights"].ravel(), np.arange(model["weights"].size), model["weights"].shape),
    }  # fmt: skip
    write = Python2Writer()
    fields = {key.encode(): write.array(model[key]) for key in model}
    others = [model | {"J_regressor": kind(model["J_regressor"])} for kind in (scipy.sparse.csr_array, scipy.sparse.coo_array)]
    return [
        *(written_with_chumpy(official, protocol) for protocol in (0, 2, 5)), b"\x80\x02" + write.dict(fields) + b".",
        *(written_with_chumpy(other, 4) for other in others),
    ]  # fmt: skip


def read_pickle(data: bytes) -> bool:
    """The last byte-choice is raw: a pickle is a program, and the fuzzer may write its own."""
    fields, bases = Fields(data), _pickles()
    chosen = fields.byte()
    content = b"\x80" + fields.rest() if chosen == 255 else fields.edited(bases[chosen % len(bases)])
    try:
        inert_pickle.plain(inert_pickle.load(content))
    except inert_pickle.PickleRefused:
        pass
    try:
        _body_is_valid(read_smpl_file(_file("body.pkl", content)))
    except REFUSED:
        return False
    return True


def pickle_seeds() -> list[bytes]:
    return [packed(index) for index in range(len(_pickles()))]


# ---- checkpoints ----------------------------------------------------------------------------------------------------


@cache
def _checkpoints() -> list[bytes]:
    """The smallest networks of each kind, as training writes them."""
    body = {"name": "embedded", "sha256": "0" * 64}
    lifter = {"width": 1, "blocks": 1, "members": 1, "embedding": False}
    resnet18 = {"width": 1, "size": 32}
    prior = {"widths": [1, 2, 1]}
    written = []
    for network, options, module, more in (
        ("pose_prior", prior, PosePrior(**prior), {}),
        ("lifter", lifter, Lifter(**lifter), {"feature_layout": [[name, list(shape)] for name, shape in FEATURE_LAYOUT]}),
        ("resnet18", resnet18, Resnet18Regressor(RegressorConfig(**resnet18), PosePrior(**prior)), {}),
    ):
        path = Path(_folder().name, "made.safetensors")
        tensors = {name: tensor for name, tensor in module.state_dict().items() if not (network == "resnet18" and "pose_decoder" in name)}
        if network == "resnet18":
            more = {"pose_prior_sha256": json.loads(_metadata(EMBEDDED["resnet18"].read_bytes()))["pose_prior_sha256"]}
        save_checkpoint(path, tensors, {"network": network, "options": options, "body": body, **more})
        written.append(path.read_bytes())
    return written


def _metadata(content: bytes) -> str:
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]["hmr_ros"]


def read_checkpoint(data: bytes) -> bool:
    """Edits of the whole file, of its header (whose length is then right), or of our metadata (so that the header stays JSON)."""
    fields, bases = Fields(data), _checkpoints()
    what, base = fields.byte() % 4, fields.choice(bases)
    length = int.from_bytes(base[:8], "little")
    header, tensors = base[8 : 8 + length], base[8 + length :]
    if what == 0:
        content = fields.edited(base)
    elif what == 1:
        header = fields.edited(header)
        content = len(header).to_bytes(8, "little") + header + tensors
    else:
        edited = fields.edited(_metadata(base).encode()).decode("utf-8", "replace")
        changed = json.loads(header) | {"__metadata__": {"hmr_ros": edited}}
        header = json.dumps(changed).encode()
        content = len(header).to_bytes(8, "little") + header + tensors
    path, read = _file("weights.safetensors", content), False
    for load in (load_pose_prior, load_lifter, load_resnet18):
        try:
            loaded = load(path)
        except REFUSED:
            continue
        network, body = (loaded, None) if load is load_pose_prior else loaded
        assert all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values())
        assert body is None or isinstance(body["sha256"], str)
        read = True
    return read


def checkpoint_seeds() -> list[bytes]:
    return [packed(what, base) for what in (0, 1, 2) for base in (0, 1, 2)]


# ---- bags -----------------------------------------------------------------------------------------------------------


@cache
def _bags() -> list[dict[str, bytes]]:
    """A bag of two pictures and a CameraInfo, as .mcap and .db3: file name → content."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    kinds = types.types
    header = kinds["std_msgs/msg/Header"](stamp=kinds["builtin_interfaces/msg/Time"](sec=5, nanosec=0), frame_id="camera")
    compressed = kinds["sensor_msgs/msg/CompressedImage"]
    bags = []
    for plugin in (StoragePlugin.MCAP, StoragePlugin.SQLITE3):
        folder = Path(_folder().name, f"written-{plugin.name}")
        with Writer(folder, version=9, storage_plugin=plugin) as writer:
            topic = writer.add_connection("/camera/image/compressed", compressed.__msgtype__, typestore=types)
            for second in (5, 6):
                message = compressed(header=header, format="jpeg", data=np.frombuffer(_encoded()["a.jpg"], np.uint8))
                writer.write(topic, second * 10**9, types.serialize_cdr(message, compressed.__msgtype__))
        bags.append({path.name: path.read_bytes() for path in folder.iterdir()})
    return bags


def read_bag(data: bytes) -> bool:
    """Edits of the recording or of metadata.yaml."""
    fields = Fields(data)
    files, of_metadata = dict(fields.choice(_bags())), fields.byte() % 4 == 3
    name = next(name for name in files if name.endswith(".yaml") == of_metadata)
    files[name] = fields.edited(files[name])
    for other in Path(_folder().name, "bag").glob("*"):
        other.unlink()
    for name, content in files.items():
        path = _file(f"bag/{name}", content)
    read = False
    try:
        for count, message in enumerate(image_messages(str(path.parent))):
            assert isinstance(message.stamp, int) and np.isfinite(message.time)
            try:
                _picture_is_valid(message.picture())
                read = True
            except REFUSED:
                pass
            if count > 1000:
                raise AssertionError("more messages than the file has bytes for")
    except REFUSED:
        return False
    return read


def bag_seeds() -> list[bytes]:
    return [packed(bag, part) for bag in (0, 1) for part in (0, 3)]


TARGETS = {
    "compressed": Target(compressed_seeds, read_compressed),
    "images": Target(image_seeds, read_image),
    "cameras": Target(camera_seeds, read_camera),
    "smpl_npz": Target(npz_seeds, read_npz),
    "smpl_pickles": Target(pickle_seeds, read_pickle),
    "checkpoints": Target(checkpoint_seeds, read_checkpoint),
    "bags": Target(bag_seeds, read_bag),
    "pictures": Target(picture_file_seeds, read_picture_file),
}
