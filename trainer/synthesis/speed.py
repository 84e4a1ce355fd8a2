"""A clip played faster or slower, in the mel domain: pitch and formants move with it, as on a tape. The same word is
still said, and by somebody else.

    power (frames, 64) ──bins──> frequencies times speed ──frames──> time by speed
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from audiosearch.features import F_MAX_HZ, N_MELS

Power = NDArray[np.float32]  # (frames, 64)


def played(power: Power, speed: float) -> Power:
    """`power` (frames, 64) at `speed` times its own, shape (about frames / speed, 64). What moves above the highest bin
    is lost, and what would come from above it is silence."""
    if speed == 1.0 or not len(power):
        return power
    moved = power @ _bins(round(speed, 3))
    frames = max(1, round(len(power) / speed))
    at = np.linspace(0, len(power) - 1, frames, dtype=np.float32)
    before = np.minimum(at.astype(np.int64), max(0, len(power) - 2))
    share = (at - before)[:, None]
    return moved[before] * (1 - share) + moved[np.minimum(before + 1, len(power) - 1)] * share


@lru_cache(maxsize=256)
def _bins(speed: float) -> NDArray[np.float32]:
    """(64, 64): which bins each bin of what is played comes from, between the two nearest centres."""
    # The HTK scale of the front end: bin k's centre is k + 1 steps of 65.
    step = _mel(F_MAX_HZ) / (N_MELS + 1)
    hertz = 700 * (10 ** (step * np.arange(1, N_MELS + 1) / 2_595) - 1)
    at = _mel(hertz / speed) / step - 1
    weights = np.maximum(0, 1 - np.abs(at[None, :] - np.arange(N_MELS)[:, None]))
    return weights.astype(np.float32)


def _mel(hertz: float | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(2_595 * np.log10(1 + np.asarray(hertz, dtype=np.float64) / 700))
