"""One worker and a slot for one frame: the newest wins, the one it replaces is counted as dropped. Imports no ROS."""

from __future__ import annotations

import threading
from typing import Any, Callable


class NewestFrameWorker:
    """Calls ``process(frame)`` in its own thread for the newest frame submitted; stale frames are never queued.

    ``process`` must not raise; if it does, ``report(error)`` is called and the worker goes on with the next frame.
    """

    def __init__(self, process: Callable[[Any], None], report: Callable[[Exception], None]):
        self.submitted = 0
        self.dropped = 0
        self._process, self._report = process, report
        self._frame: Any = None
        self._stopping = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="hmr worker", daemon=True)
        self._thread.start()

    def submit(self, frame: Any) -> None:
        """Put a frame into the slot, in place of one that still waits there. Never blocks for long."""
        with self._changed:
            self.submitted += 1
            self.dropped += self._frame is not None
            self._frame = frame
            self._changed.notify()

    def stop(self, timeout: float | None = None) -> bool:
        """Let the frame in work end, discard the one that waits; False if the worker is still busy after ``timeout``."""
        with self._changed:
            self._stopping = True
            self.dropped += self._frame is not None
            self._frame = None
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._frame is not None or self._stopping)
                if self._stopping:
                    return
                frame, self._frame = self._frame, None
            try:
                self._process(frame)
            except Exception as error:
                self._report(error)
