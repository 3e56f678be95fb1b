"""Acceleration error and delay against curves whose derivatives and shifts are known."""

import numpy as np
import pytest

from hmr_ros.training.metrics import acceleration_error, delay

T = np.arange(90)[:, None, None] / 30.0


def test_acceleration_error_of_a_parabola_is_its_second_difference():
    gt = np.zeros((90, 2, 3))
    assert acceleration_error(gt + 0.5 * 9.0 * T**2 * [1, 0, 0], gt) == pytest.approx(1000 * 9.0 / 30**2)


@pytest.mark.parametrize("late", [-0.025, 0.0, 0.04])
def test_delay_is_found_between_frames(late):
    def wave(t):
        return np.concatenate([np.sin(5 * t), np.cos(3 * t), np.sin(2 * t)], -1)

    assert delay(wave(T - late), wave(T), 30.0) == pytest.approx(late, abs=1e-3)
