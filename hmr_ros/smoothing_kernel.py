"""One-Euro filters as numba kernels, for vectors and for rotations; smoothing.py says what they are for.

Both take the values now, the low-passes' states ``stages`` (STAGES, N, ...) and speeds ``speed`` (N, D), which they update, and the filter's
constants; the smoothed values are those of the last stage.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from hmr_ros.rotations import rotvec_between, turn


@njit(cache=True, nogil=True)
def low_pass_gain(cutoff, passed):
    """Of a first-order low-pass, ``passed`` seconds after its last value: the share of what is new. ``cutoff`` in Hz."""
    r = 2 * np.pi * cutoff * passed
    return r / (r + 1)


@njit(cache=True, nogil=True)
def _gain(speed, step, passed, min_cutoff, beta, derivative_cutoff):
    """The speed (D,) goes on by a step since the last value; the gain at this speed."""
    share, square = low_pass_gain(derivative_cutoff, passed), 0.0
    for d in range(len(speed)):
        speed[d] += share * (step[d] / passed - speed[d])
        square += speed[d] * speed[d]
    return low_pass_gain(min_cutoff + beta * np.sqrt(square), passed)


@njit(cache=True, nogil=True)
def filter_vectors(now, stages, speed, passed, min_cutoff, beta, derivative_cutoff):
    """Vectors (N, D), one cutoff for the D coordinates of each."""
    step = np.empty(now.shape[1])
    for n in range(len(now)):
        for d in range(len(step)):
            step[d] = now[n, d] - stages[0, n, d]
        gain = _gain(speed[n], step, passed, min_cutoff, beta, derivative_cutoff)
        for i in range(len(stages)):
            for d in range(len(step)):
                stages[i, n, d] += gain * ((now[n, d] if i == 0 else stages[i - 1, n, d]) - stages[i, n, d])


@njit(cache=True, nogil=True)
def filter_rotations(now, stages, speed, passed, min_cutoff, beta, derivative_cutoff):
    """Rotations (N, 3, 3): steps are rotation vectors, the speed's in the frame of the filtered rotation."""
    step, local = np.empty(3), np.empty(3)
    for n in range(len(now)):
        gain = 0.0
        for i in range(len(stages)):
            rotvec_between(now[n] if i == 0 else stages[i - 1, n], stages[i, n], step)
            if i == 0:
                for d in range(3):
                    local[d] = 0.0
                    for e in range(3):
                        local[d] += stages[0, n, e, d] * step[e]
                gain = _gain(speed[n], local, passed, min_cutoff, beta, derivative_cutoff)
            turn(stages[i, n], gain * step[0], gain * step[1], gain * step[2])
