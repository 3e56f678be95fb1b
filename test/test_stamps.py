"""Stamps that cannot be trusted, rates and gaps: without ROS."""

import numpy as np
import pytest

from hmr_ros.ros.stamps import PAUSE, FollowingClock, FrameGaps, RateLimit


def played(stamps, arrivals=None):
    """What the clock says for stamps in seconds that arrive at 10 Hz, and its remark."""
    clock = FollowingClock()
    arrivals = 50 + 0.1 * np.arange(len(stamps)) if arrivals is None else arrivals
    return np.array([clock(int(1e9 * s), a) for s, a in zip(stamps, arrivals)]), clock.remark


def test_good_stamps_are_followed_whenever_they_arrive():
    times, remark = played(1000 + np.array([0, 0.1, 0.25, 0.3, 2.0]), np.array([0, 0.3, 0.3, 0.31, 0.5]))
    np.testing.assert_allclose(np.diff(times), [0.1, 0.15, 0.05, 1.7], atol=1e-6)
    assert not remark


@pytest.mark.parametrize("stamps, word", [(np.zeros(20), "are zero"), (np.full(20, 7.5), "stand still"), (100 - 0.1 * np.arange(20), "go back"),
                                          (100 + 0.1 * np.arange(20) - 0.25 * (np.arange(20) % 2), "go back")])  # fmt: skip
def test_bad_stamps_are_followed_by_arrival_and_named(stamps, word):
    times, remark = played(stamps)
    steps = np.diff(times)
    assert (steps > 0).all() and np.median(steps) == pytest.approx(0.1)
    assert (steps > 0.8).sum() <= 1  # one frame at most is taken for a jump
    assert word in remark and "times of arrival" in remark


def test_a_recording_that_begins_again_is_one_long_pause():
    times, remark = played([100, 100.1, 100.2, 90, 90.1, 90.2])
    np.testing.assert_allclose(np.diff(times), [0.1, 0.1, PAUSE, 0.1, 0.1], atol=1e-6)
    assert not remark


def test_stamps_that_recover_are_trusted_again():
    times, _ = played(np.concatenate([np.full(10, 5.0), 6 + 0.2 * np.arange(30)]))
    assert np.diff(times)[-5:] == pytest.approx(0.2)


@pytest.mark.parametrize("camera, limit, passed", [(30, 10, 10), (30, 20, 20), (30, 25, 25), (10, 30, 10), (30, 0, 30), (30, 30, 30)])
def test_a_rate_is_kept_and_even(camera, limit, passed):
    rng = np.random.default_rng(0)
    limiter = RateLimit(limit)
    arrivals = np.arange(20 * camera) / camera + rng.uniform(0, 0.002, 20 * camera)
    through = [a for a in arrivals if limiter.passes(a)]
    assert len(through) / 20 == pytest.approx(passed, rel=0.1)
    assert max(np.diff(through)) < 2.2 / passed


def test_frames_lost_before_the_node_are_gaps_of_the_stamps():
    gaps, rng = FrameGaps(), np.random.default_rng(1)
    lost = np.sort(rng.choice(np.arange(20, 299), 100, replace=False))
    for i in sorted(set(range(300)) - set(lost)):
        gaps.add(int(1e9 * (1000 + i / 30 + rng.normal(0, 0.002))))
    assert 90 <= gaps.lost <= 110
    steady = FrameGaps()
    for i in range(200):
        steady.add(int(1e9 * (i / 30 + (1000 if i < 100 else 2000))))  # one pause
    assert steady.lost == 0
