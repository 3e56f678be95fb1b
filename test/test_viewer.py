"""`hmr-ros view`: what a visitor's browser really shows, and that a visitor can do nothing else."""

import signal
import socket
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

viser = pytest.importorskip("viser", reason="viser is not installed")
pytest.importorskip("rosbags", reason="rosbags is not installed")
from body_recordings import HEIGHT, INTRINSICS, RATE, START, WIDTH, posed, without_mesh, write_bodies  # noqa: E402
from browser import Browser, find_browser  # noqa: E402
from websockets.exceptions import InvalidStatus  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from hmr_ros.body.model import BodyModel  # noqa: E402
from hmr_ros.motion.motion import motion_of  # noqa: E402
from hmr_ros.palette import person_colour, person_number  # noqa: E402
from hmr_ros.viewer import server  # noqa: E402
from hmr_ros.viewer.meshes import MeshMaker  # noqa: E402
from hmr_ros.viewer.scene import Ground, _turned_z  # noqa: E402
from hmr_ros.viewer.shots import History, Shot, shots_of, small_jpeg  # noqa: E402

needs_browser = pytest.mark.skipif(find_browser() is None, reason="no Chromium (Debian's package chromium)")
SIZE = (960, 560)
PANEL = 620  # where the controls begin, pixels
COLOUR = person_colour(person_number("a1b2c", 0))
CAMERA = (*INTRINSICS, WIDTH, HEIGHT)
CODE = "import sys; from hmr_ros.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def model():
    return BodyModel.load(None)


@pytest.fixture(scope="module")
def person(model):
    return posed(model, 3, frames=3, place=(0.0, 0.3, 2.2))


@pytest.fixture(scope="module")
def motion(model, person):
    frames = [(i, START + i / RATE, [without_mesh(body)]) for i, body in enumerate(person)]
    return motion_of([*frames, (3, START + 3 / RATE, [])], model.name, model.sha256, "learned", CAMERA)


@pytest.fixture(scope="module")
def viewer(motion, model):
    """Of the recording's first moment alone, so that every screenshot is of the same."""
    make_mesh = MeshMaker()
    make_mesh.expect(model.name, model.sha256)
    make_mesh.load()
    shots = shots_of(motion)[:1]
    viewer = server.Viewer(lambda: shots, False, make_mesh, lambda: "the status", "127.0.0.1", 0)
    yield viewer
    assert viewer.failed is None
    viewer.stop()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium") / "profile", SIZE)
    yield browser
    browser.close()


# ---- what is shown -----------------------------------------------------------------------------------------------------


def silhouette(body, faces, size):
    """(H, W) bool: where the mesh must be, by a pinhole at a visitor's first viewpoint."""
    forward = np.subtract(server.TOWARDS, server.BEHIND)
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0, -1, 0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    points = (body.vertices + body.translation - server.BEHIND) @ np.stack([right, down, forward], 1)
    height, width = size
    focal = height / 2 / np.tan(server.FIELD_OF_VIEW / 2)
    pixels = (focal * points[:, :2] / points[:, 2:] + (width / 2, height / 2)).astype(np.float32)
    mask = np.zeros(size, np.uint8)
    for face in pixels[faces]:
        cv2.fillConvexPoly(mask, face.round().astype(np.int32), 1)
    return mask > 0


def of_hue(picture, colour, tolerance=12):
    """(H, W) bool: saturated pixels with the hue of an RGB colour, however it is lit."""
    hsv = cv2.cvtColor(picture, cv2.COLOR_BGR2HSV).astype(int)
    hue = int(cv2.cvtColor(np.uint8([[colour[::-1]]]), cv2.COLOR_BGR2HSV)[0, 0, 0])
    away = np.abs(hsv[..., 0] - hue)
    return (np.minimum(away, 180 - away) <= tolerance) & (hsv[..., 1] > 60)


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


@needs_browser
def test_the_browser_shows_the_mesh_where_it_is_and_hides_it_when_asked(viewer, browser, person, model, wait_until):
    browser.open(viewer.address)
    wait_until(lambda: "1 person" in browser.text() and "the status" in browser.text(), 40)
    browser.click("Skeletons")  # they shine through the mesh
    browser.click("Picture")

    def shown():
        picture = browser.screenshot()
        picture[:, PANEL:] = 255  # the panel
        return of_hue(picture, COLOUR)

    expected = silhouette(person[0], model.faces, browser.screenshot().shape[:2])
    assert 1_500 < expected.sum() < 30_000 and not expected[:, PANEL:].any()
    wait_until(lambda: overlap(shown(), expected) > 0.7, 30)
    assert overlap(shown(), np.roll(expected, 15, 1)) < 0.6 and overlap(shown(), expected[::-1]) < 0.5  # elsewhere would be noticed
    browser.click("Meshes")
    wait_until(lambda: (shown() & expected).sum() < 100, 30)
    browser.click("Meshes")
    wait_until(lambda: overlap(shown(), expected) > 0.7, 30)


@needs_browser
def test_what_one_visitor_hides_others_still_see(viewer, browser, tmp_path, wait_until):
    browser.open(viewer.address)
    wait_until(lambda: "1 person" in browser.text(), 40)
    wait_until(lambda: len(viewer._visitors) == 1)
    (first,) = viewer._visitors.values()
    first._controls[0].value = False
    other = Browser(tmp_path / "profile", (400, 300))
    try:
        other.open(viewer.address)
        wait_until(lambda: len(viewer._visitors) == 2)
        second = next(visitor for visitor in viewer._visitors.values() if visitor is not first)
        wait_until(lambda: second._drawn is not None)
        assert second._controls[0].value and second._drawn[1].meshes and not first._drawn[1].meshes
    finally:
        other.close()
    wait_until(lambda: len(viewer._visitors) == 1)


@needs_browser
def test_a_bag_is_shown_with_its_pictures_in_the_camera(browser, person, model, tmp_path, wait_until):
    pytest.importorskip("rclpy")
    green = np.full((HEIGHT, WIDTH, 3), (40, 200, 40), np.uint8)
    bag = write_bodies(tmp_path / "bag", model, [person[:1]], picture=green)
    log = tmp_path / "view.log"
    with open(log, "wb") as out:
        view = subprocess.Popen([sys.executable, "-P", "-c", CODE, "view", str(bag), "--port", "0"], stdout=out, stderr=out)
    try:
        wait_until(lambda: "open http" in log.read_text() or view.poll() is not None, 40)
        browser.open(log.read_text().split("open ")[1].split()[0])
        wait_until(lambda: "1 of them with a picture of /image" in browser.text(), 40)
        browser.click("Skeletons")
        expected = silhouette(person[0], model.faces, browser.screenshot().shape[:2])

        def seen():
            picture = browser.screenshot()
            return of_hue(picture, COLOUR)[expected].mean() > 0.4 and of_hue(picture, (40, 200, 40)).sum() > 2_000  # it covers a part of the mesh

        wait_until(seen, 40)
    finally:
        view.send_signal(signal.SIGINT)
        try:
            assert view.wait(20) == 0, log.read_text()
        finally:
            view.kill()
            view.wait()


# ---- what a visitor cannot do ------------------------------------------------------------------------------------------


def test_pages_of_others_and_foreign_names_are_refused(viewer):
    port = viewer._server.get_port()

    def handshake(**headers):
        with connect(f"ws://127.0.0.1:{port}", subprotocols=[f"viser-v{viser.__version__}"], **headers):
            return True

    assert handshake() and handshake(origin=f"http://127.0.0.1:{port}")
    for headers in ({"origin": "http://evil.example"}, {"origin": f"http://127.0.0.1:{port + 1}"}, {"origin": "null"}):
        with pytest.raises(InvalidStatus, match="403"):
            handshake(**headers)
    with socket.create_connection(("127.0.0.1", port)) as raw:  # a foreign name that points here
        raw.sendall(f"GET / HTTP/1.1\r\nHost: evil.example:{port}\r\n\r\n".encode())
        assert b" 403 " in raw.recv(200)


def test_it_listens_on_loopback_only(viewer):
    port = viewer._server.get_port()
    listening = {line.split()[1] for kind in ("tcp", "tcp6") for line in open(f"/proc/net/{kind}") if line.split()[3] == "0A"}
    assert {address.split(":")[0] for address in listening if address.endswith(f":{port:04X}")} == {"0100007F"}


def test_no_message_of_a_browser_opens_a_tunnel(viewer, monkeypatch):
    from viser import _messages

    handlers = viewer._server._websock_server._incoming_handlers
    opened = []
    monkeypatch.setattr("viser._tunnel.ViserTunnel.on_connect", lambda *_: opened.append(True), raising=False)
    for message in (_messages.ShareUrlRequest(), _messages.ShareUrlDisconnect()):
        for handler in handlers[type(message)]:
            handler(0, message)
    time.sleep(0.2)
    assert viewer._server.request_share_url() is None and not opened and not hasattr(viewer._server, "_share_tunnel_opened")
    assert getattr(viewer._server, "_share_tunnel", None) is None


# ---- without a browser -------------------------------------------------------------------------------------------------


def test_meshes_are_made_from_the_parameters_of_the_same_model_and_of_no_other(model, person):
    make_mesh = MeshMaker()
    make_mesh.expect(model.name, model.sha256)
    vertices, faces = make_mesh(without_mesh(person[1]))
    np.testing.assert_allclose(vertices, person[1].vertices, atol=1e-5)
    assert faces.shape == model.faces.shape and not make_mesh.missing
    make_mesh.expect("another", "ab" * 32)
    assert make_mesh(without_mesh(person[1])) is None and "bodies belong to body model another" in make_mesh.missing
    make_mesh.expect("another", "ab" * 32, np.zeros((5, 3), np.uint32))  # published vertices need no model
    vertices, faces = make_mesh(person[1])
    assert vertices is person[1].vertices and len(faces) == 5


def test_a_history_forgets_the_oldest_and_knows_its_rate():
    history = History(3)
    for i in range(10):
        history.add(Shot(float(i), [], 0), 0.1 * i)
    assert [shot.time for shot in history.shots()] == [7.0, 8.0, 9.0] and history.count == 10
    assert history.rate(0.9) == pytest.approx(10) and history.rate(100.0) == 0


def test_moments_of_a_recording_are_those_of_its_images(motion):
    shots = shots_of(motion)
    assert [len(shot.bodies) for shot in shots] == [1, 1, 1, 0] and all(shot.camera == CAMERA for shot in shots)
    assert shots[1].bodies[0].id == "a1b2c"


def test_pictures_are_kept_small():
    jpeg = small_jpeg(np.full((480, 640, 3), (10, 200, 30), np.uint8))
    picture = Shot(0.0, [], 0, jpeg).picture()
    assert picture.shape == (360, 480, 3) and np.abs(picture.astype(int) - (30, 200, 10)).max() < 8  # RGB


def test_the_ground_is_where_people_stand_even_below_a_tilted_camera(model):
    import torch

    tilt = np.array([[1, 0, 0], [0, np.cos(0.4), -np.sin(0.4)], [0, np.sin(0.4), np.cos(0.4)]])  # looks down by 23 degrees
    rest = model(torch.eye(3).expand(1, 24, 3, 3), torch.zeros(1, 10))
    sole = float(rest.vertices[0, :, 1].min())
    ground = Ground()
    for x, z in ((-2, 5), (0, 7), (2, 9), (1, 6)):
        upright = rest.joints[0].numpy() * (1, -1, -1) + (x, 2.5 + sole, z)  # the soles at y = 2.5, in a level camera
        ground.add(upright @ tilt.T)
    point, up = ground.plane()
    np.testing.assert_allclose(up @ tilt, (0, -1, 0), atol=0.06)
    assert (point @ tilt)[1] == pytest.approx(2.5, abs=0.08)


def test_bones_are_turned_towards_their_ends():
    directions = np.random.default_rng(0).normal(size=(50, 3))
    directions[0], directions[1] = (0, 0, -2), (0, 0, 0)
    w, x, y, z = _turned_z(directions).T
    turned = np.column_stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)])  # the rotation's third column
    expected = directions / np.maximum(np.linalg.norm(directions, axis=1, keepdims=True), 1e-12)
    np.testing.assert_allclose(turned[2:], expected[2:], atol=1e-12)
    np.testing.assert_allclose(turned[:2], [(0, 0, -1), (0, 0, 1)], atol=1e-12)


@pytest.mark.parametrize("arguments, words", [(["nothing.npz"], "nothing.npz does not exist"), (["--port", "70000"], "expected 0 to 65535")])
def test_wrong_arguments_are_refused_in_words(arguments, words, tmp_path):
    done = subprocess.run([sys.executable, "-P", "-m", "hmr_ros.cli", "view", *arguments], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2 and words in done.stderr + done.stdout


# ---- live --------------------------------------------------------------------------------------------------------------


@needs_browser
def test_live_bodies_and_their_picture_reach_the_browser(browser, person, model, tmp_path, wait_until):
    rclpy = pytest.importorskip("rclpy")
    from hmr_ros.msg import BodyArray, BodyModel as BodyModelMessage
    from hmr_ros.ros.inputs import image_to_message, intrinsics_to_message
    from hmr_ros.ros.messages import body_array_message, body_model_message
    from hmr_ros.ros.qos import LATCHED
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header

    from hmr_ros.ros.process import start_ros

    log = tmp_path / "view.log"
    with open(log, "wb") as out:
        view = subprocess.Popen([sys.executable, "-P", "-c", CODE, "view", "--port", "0", "--ros-args", "-r", "bodies:=/robot/bodies"],
                                stdout=out, stderr=out)  # fmt: skip
    start_ros([])
    node = rclpy.create_node("peer")
    stop = threading.Event()
    try:
        publish = {name: node.create_publisher(kind, name, qos) for kind, name, qos in (
            (BodyArray, "/robot/bodies", 5), (Image, "image", 5), (CameraInfo, "camera_info", 5), (BodyModelMessage, "body_model", LATCHED))}  # fmt: skip
        publish["body_model"].publish(body_model_message(model))
        green = np.full((HEIGHT, WIDTH, 3), (40, 200, 40), np.uint8)

        def talk():
            number = 0
            while not stop.wait(0.1):
                number += 1
                header = Header(frame_id="camera")
                header.stamp.sec = 1_000 + number
                publish["camera_info"].publish(intrinsics_to_message(INTRINSICS, WIDTH, HEIGHT, header))
                publish["image"].publish(image_to_message(green, header))
                publish["/robot/bodies"].publish(body_array_message(person[:1], header, "learned", False, "camera"))

        talker = threading.Thread(target=talk)
        talker.start()
        wait_until(lambda: "open http" in log.read_text() or view.poll() is not None, 40)
        address = next(line.split()[1] for line in log.read_text().splitlines() if line.startswith("open "))
        browser.open(address)
        wait_until(lambda: "1 person, now" in browser.text() and "body arrays received" in browser.text(), 40)
        browser.click("Skeletons")
        expected = silhouette(person[0], model.faces, browser.screenshot().shape[:2])

        def seen():
            picture = browser.screenshot()
            mesh = of_hue(picture, COLOUR)[expected].mean()
            return mesh > 0.4 and of_hue(picture, (40, 200, 40)).sum() > 2_000  # the frustum's picture covers a part of the mesh

        wait_until(seen, 40)
        assert {topic for topic, _ in node.get_publisher_names_and_types_by_node("view", "/")} <= {"/parameter_events"}  # of every node of rclpy
        assert {name for name, _ in node.get_service_names_and_types_by_node("view", "/")} <= {"/view/get_type_description"}  # it only tells
    finally:
        stop.set()
        talker.join()
        node.destroy_node()
        rclpy.try_shutdown()
        view.send_signal(signal.SIGINT)
        try:
            assert view.wait(20) == 0, log.read_text()
        finally:
            view.kill()
            view.wait()
