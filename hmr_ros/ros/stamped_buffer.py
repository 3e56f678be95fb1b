"""The newest few messages of a topic by their stamps: for what belongs to an image but arrives on its own. Imports no ROS."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any


class StampedBuffer:
    """Holds ``size`` messages; the oldest goes first. One thread puts, another takes."""

    def __init__(self, size: int = 10):
        self._size = size
        self._messages: OrderedDict[int, Any] = OrderedDict()
        self._changed = threading.Condition()

    def put(self, stamp: int, message: Any) -> None:
        """``stamp`` in nanoseconds."""
        with self._changed:
            self._messages[stamp] = message
            self._messages.move_to_end(stamp)
            while len(self._messages) > self._size:
                self._messages.popitem(last=False)
            self._changed.notify_all()

    def nearest(self, stamp: int, tolerance: int, wait: float = 0.0) -> Any | None:
        """The message nearest to ``stamp``, at most ``tolerance`` nanoseconds away; None where none comes within ``wait`` seconds.

        It waits only for a message that can still come: not once one of a later stamp is here.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._best(stamp, tolerance) is not None or self._is_past(stamp), wait)
            best = self._best(stamp, tolerance)
            return None if best is None else self._messages[best]

    def _best(self, stamp: int, tolerance: int) -> int | None:
        best = min(self._messages, key=lambda other: abs(other - stamp), default=None)
        return best if best is not None and abs(best - stamp) <= tolerance else None

    def _is_past(self, stamp: int) -> bool:
        return any(other > stamp for other in self._messages)
