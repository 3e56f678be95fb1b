"""Headless Chromium for tests, driven over its DevTools protocol: open a page, run scripts there, take screenshots."""

import base64
import json
import shutil
import subprocess
import time
import urllib.request

import cv2
import numpy as np

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = ("--headless=new", "--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--disable-background-networking",
         "--no-first-run", "--disable-gpu-sandbox", "--remote-debugging-port=0", "--remote-allow-origins=*")  # fmt: skip


def find_browser():
    """Path of a Chromium, None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """One page in a browser of its own."""

    def __init__(self, profile, size=(1000, 700)):
        from websockets.sync.client import connect

        profile.mkdir()
        command = [find_browser(), *FLAGS, f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._number = 0
        try:
            port = self._wait(lambda: (profile / "DevToolsActivePort").read_text().split()[0])
            pages = self._wait(lambda: json.load(urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5)))
            self._socket = connect(next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"], max_size=None)
        except BaseException:
            self.close()
            raise

    @staticmethod
    def _wait(attempt, seconds=30.0):
        deadline = time.monotonic() + seconds
        while True:
            try:
                return attempt()
            except (OSError, IndexError, ValueError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _ask(self, method, **parameters):
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv(timeout=60))
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def open(self, address):
        self._ask("Page.navigate", url=address)

    def run(self, script):
        """The value of a JavaScript expression."""
        return self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)["result"].get("value")

    def text(self):
        return self.run("document.body.innerText") or ""

    def click(self, label):
        """The checkbox with this label."""
        found = self.run(f"(() => {{const l = [...document.querySelectorAll('label')].find(l => l.innerText.trim() == {json.dumps(label)});"
                         "if (!l) return null; const i = document.getElementById(l.htmlFor) || l.parentElement.parentElement.querySelector('input');"
                         "if (!i) return null; i.click(); return true})()")  # fmt: skip
        assert found, f"no checkbox {label!r} in {self.text()!r}"

    def screenshot(self):
        """(H, W, 3) BGR."""
        data = base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"])
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)

    def close(self):
        if hasattr(self, "_socket"):
            self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
