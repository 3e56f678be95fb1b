"""The web server: every visitor has a scene and controls of their own, and changes nothing but what they see themselves.

Nothing goes from a browser to the robot: the handlers of viser's messages end in a visitor's own controls, and its tunnel to a public
address, which a browser could ask for, is switched off.
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import numpy as np
import viser
import websockets.asyncio.server

from hmr_ros.palette import RELIABILITY
from hmr_ros.viewer.meshes import MeshMaker
from hmr_ros.viewer.scene import BodyScene, Look
from hmr_ros.viewer.shots import Shot

DRAW_HZ = 15.0
BEHIND, TOWARDS, FIELD_OF_VIEW = (2.0, -1.2, -0.9), (0.2, 0.2, 2.7), np.radians(50)  # where a visitor begins: beside the camera, above it
FAR_M = 5.0  # people further away are looked at from further away
LOOPBACK = ("127.0.0.1", "localhost", "::1")
LEGEND = "Reliability of joints: " + " ".join(
    f'<span style="color: rgb{colour}">&#9632;</span> {value}' for value, colour in zip(("0", "0.5", "1"), RELIABILITY)
)  # fmt: skip


class _Server(viser.ViserServer):
    """Without viser's tunnel to a public address: a message from any browser would open it."""

    def request_share_url(self, verbose: bool = True) -> None:
        return None

    def disconnect_share_url(self) -> None:
        return None


@contextlib.contextmanager
def _only_our_own_page(host: str) -> Iterator[None]:
    """A server that starts meanwhile refuses other web pages: a browser would let any page that it shows read the camera's pictures here.

    viser does not look at a request's Origin. On loopback the name must be loopback's, too, so that no foreign name that points here does.
    RuntimeError where viser starts no server through websockets.
    """
    serve, guarded = websockets.asyncio.server.serve, []

    def start(handler, *arguments, process_request, **options):
        def check(connection, request):
            origin, name = request.headers.get("Origin"), request.headers.get("Host", "")
            foreign = origin is not None and urlsplit(origin).netloc != name
            if foreign or (host in LOOPBACK and urlsplit(f"//{name}").hostname not in LOOPBACK):
                return connection.respond(403, "only this server's own page may connect\n")
            return process_request(connection, request)

        guarded.append(True)
        return serve(handler, *arguments, process_request=check, **options)

    websockets.asyncio.server.serve = start
    try:
        yield
    finally:
        websockets.asyncio.server.serve = serve
    if not guarded:
        raise RuntimeError(f"viser {viser.__version__} starts its server in another way than 1.1: pages of others cannot be refused; install viser 1.1")


class Viewer:
    """Serves at ``address`` until :meth:`stop`.

    ``shots``: () → those that can be shown, oldest first; ``live``: whether new ones come. ``status``: () → one line for the visitors.
    """

    def __init__(self, shots: Callable[[], list[Shot]], live: bool, make_mesh: MeshMaker, status: Callable[[], str], host: str, port: int):
        with _only_our_own_page(host), contextlib.redirect_stdout(io.StringIO()):  # it would print a table
            self._server = _Server(host, port, label="hmr-ros", verbose=False)
        self._server.gui.configure_theme(show_logo=False, show_share_button=False)
        self._server.scene.set_up_direction("-y")
        self._server.initial_camera.position, self._server.initial_camera.look_at = BEHIND, TOWARDS
        self._server.initial_camera.up, self._server.initial_camera.fov = (0.0, -1.0, 0.0), float(FIELD_OF_VIEW)
        self.address = f"http://{'localhost' if host in LOOPBACK else host}:{self._server.get_port()}"
        self._shots, self._live, self._make_mesh, self._status = shots, live, make_mesh, status
        self._visitors: dict[int, _Visitor] = {}
        self._stop = threading.Event()
        self._server.on_client_connect(self._welcome)
        self._server.on_client_disconnect(lambda client: self._visitors.pop(client.client_id, None))
        self._thread = threading.Thread(target=self._run, name="viewer", daemon=True)
        self.failed: BaseException | None = None
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(3.0)
        self._server.stop()

    def _welcome(self, client: viser.ClientHandle) -> None:
        self._visitors[client.client_id] = _Visitor(client, BodyScene(client.scene, self._make_mesh), self._live)

    def _run(self) -> None:
        try:
            while not self._stop.wait(1 / DRAW_HZ):
                if visitors := list(self._visitors.values()):
                    shots, status = self._shots(), self._status()
                    for visitor in visitors:
                        visitor.update(shots, status)
        except BaseException as error:  # for the main thread, which asks
            self.failed = error


class _Visitor:
    """One browser: its controls, and what it is shown."""

    def __init__(self, client: viser.ClientHandle, scene: BodyScene, live: bool):
        self._client, self._scene, self._live = client, scene, live
        self._kept: list[Shot] | None = None  # what the slider runs over while it stands still
        self._drawn: tuple | None = None
        self._said = ""
        self._aimed = False
        self._began: tuple[float, float] | None = None  # a recording is played: time on the wall and of the recording
        gui = client.gui
        self._text = gui.add_markdown("waiting for bodies")
        self._run = gui.add_checkbox("Follow live" if live else "Play", True)
        self._slider = gui.add_slider("Moment", 0, 1, 1, 0, hint="Earlier bodies: the visitor's own view, others see theirs")
        self._controls = [gui.add_checkbox(text, value) for text, value in
                          (("Meshes", True), ("Skeletons", True), ("Picture", True), ("Ground", True), ("Meshes coloured by reliability", False))]  # fmt: skip
        gui.add_html(f'<div style="padding: 0 1em 0.5em; font-size: 0.85em">{LEGEND}</div>')
        self._slider.on_update(self._moved)

    def _moved(self, event) -> None:
        if event.client is not None:  # the visitor, not us
            self._run.value = False

    def update(self, shots: list[Shot], status: str) -> None:
        """Draw what this visitor wants to see of ``shots``, where that has changed."""
        if not shots:
            return self._say(status)
        running = self._run.value
        if running:
            self._kept, index = None, len(shots) - 1 if self._live else self._played(shots)
        else:
            if self._kept is None:
                self._kept = shots
            shots, self._began = self._kept, None
            index = min(int(self._slider.value), len(shots) - 1)
        if self._slider.max != max(len(shots) - 1, 1):
            self._slider.max = max(len(shots) - 1, 1)
        if running and self._slider.value != index:
            self._slider.value = index
        look = Look(*(control.value for control in self._controls))
        shot = shots[index]
        if self._drawn != (shot, look):
            with self._client.atomic():
                self._scene.draw(shot, look)
            if not self._aimed:
                self._aim(shot, look)
            self._drawn = (shot, look)
        count = len(shot.bodies)
        people = f"{count} of {shot.detected} people have a body" if shot.detected > count else "1 person" if count == 1 else f"{count} people"
        moment = "now" if running and self._live else f"{shot.time - shots[-1].time if self._live else shot.time - shots[0].time:+.2f} s"
        self._say(f"**{people}**, {moment}\n\n{status}")

    def _aim(self, shot: Shot, look: Look) -> None:
        """Once: where the first people are too far for the usual viewpoint, begin further away, upright on their ground, with a larger picture."""
        places = [body.translation for body in shot.bodies if body.translation is not None]
        self._aimed = bool(shot.bodies)
        if places and (middle := np.median(places, axis=0))[2] > FAR_M:
            camera, factor = self._client.camera, middle[2] / TOWARDS[2]
            camera.up_direction = self._scene.up
            camera.position, camera.look_at = factor * np.array(BEHIND), middle
            self._scene.picture_m *= factor
            self._scene.draw(shot, look)

    def _played(self, shots: list[Shot]) -> int:
        """The shot of a recording that is due now; from the beginning again at its end."""
        now = time.monotonic()
        first, last = shots[0].time, shots[-1].time
        if self._began is None:
            begin = int(self._slider.value)
            self._began = now, shots[begin if begin < len(shots) - 1 else 0].time
        at = self._began[1] + now - self._began[0]
        if at > last + 1 / DRAW_HZ:
            self._began, at = (now, first), first
        return max(0, sum(shot.time <= at for shot in shots) - 1)

    def _say(self, text: str) -> None:
        if text != self._said:
            self._text.content = self._said = text
