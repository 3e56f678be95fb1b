"""What belongs to an image by its stamp: the nearest, not too far, and waited for only while it can still come."""

import threading
import time

from hmr_ros.ros.stamped_buffer import StampedBuffer


def test_the_nearest_within_the_tolerance_is_taken():
    buffer = StampedBuffer()
    for stamp in (0, 33, 66):
        buffer.put(stamp, f"depth {stamp}")
    assert buffer.nearest(40, 10) == "depth 33"
    assert buffer.nearest(50, 10) is None
    assert buffer.nearest(66, 0) == "depth 66"


def test_the_oldest_goes_first():
    buffer = StampedBuffer(size=2)
    for stamp in (1, 2, 3):
        buffer.put(stamp, stamp)
    assert buffer.nearest(1, 0) is None and buffer.nearest(2, 0) == 2


def test_one_that_is_late_is_waited_for():
    buffer = StampedBuffer()
    timer = threading.Timer(0.1, buffer.put, (7, "late"))
    timer.start()
    assert buffer.nearest(7, 0, wait=30) == "late"


def test_nobody_waits_once_a_later_one_is_there():
    buffer = StampedBuffer()
    buffer.put(100, "later")
    begin = time.monotonic()
    assert buffer.nearest(7, 5, wait=30) is None
    assert time.monotonic() - begin < 5
