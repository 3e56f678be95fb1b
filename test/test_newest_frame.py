"""The slot for one frame and its worker: the newest wins, failures are reported, stopping is bounded. No ROS needed."""

import threading

import pytest

from hmr_ros.ros.newest_frame import NewestFrameWorker

PATIENCE = 60.0


class Held:
    """Work that waits until it is let go: ``process`` for a worker, with what it was given in ``done``."""

    def __init__(self):
        self.free, self.started, self.done = threading.Event(), threading.Event(), []
        self.finished = threading.Condition()

    def process(self, frame):
        self.started.set()
        assert self.free.wait(PATIENCE)
        with self.finished:
            self.done.append(frame)
            self.finished.notify()

    def worker_on(self, frame) -> NewestFrameWorker:
        """A worker that has begun with this frame."""
        worker = NewestFrameWorker(self.process, report=pytest.fail)
        worker.submit(frame)
        assert self.started.wait(PATIENCE)
        return worker


def test_the_newest_frame_wins_and_the_others_are_counted():
    held = Held()
    worker = held.worker_on(0)
    for frame in range(1, 6):
        worker.submit(frame)
    held.free.set()
    with held.finished:
        assert held.finished.wait_for(lambda: len(held.done) == 2, PATIENCE)
    assert held.done == [0, 5] and (worker.submitted, worker.dropped) == (6, 4)
    assert worker.stop(PATIENCE)


def test_stopping_discards_the_frame_that_waits():
    held = Held()
    worker = held.worker_on(0)
    worker.submit(1)
    assert not worker.stop(0.0)
    held.free.set()
    assert worker.stop(PATIENCE) and held.done == [0] and worker.dropped == 1


def test_a_frame_that_raises_is_reported_and_the_next_one_is_done():
    done, reported, errors = threading.Event(), threading.Event(), []

    def report(error):
        errors.append(error)
        reported.set()

    worker = NewestFrameWorker(lambda frame: 1 / frame if frame == 0 else done.set(), report)
    worker.submit(0)
    assert reported.wait(PATIENCE)
    worker.submit(1)
    assert done.wait(PATIENCE) and isinstance(errors[0], ZeroDivisionError)
    assert worker.stop(PATIENCE)
