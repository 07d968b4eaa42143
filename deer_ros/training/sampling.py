"""Which exit the shared head hears from at every step of a window (Yue et al. 2024, section 3.3).

At run time exits change within an episode, so the head must take features of any exit in any
order. Two samplings teach it: an exit drawn for every step, and one for each of two stretches.
"""

from __future__ import annotations

import numpy as np


def exit_per_step(rng: np.random.Generator, windows: int, steps: int, exits: int) -> np.ndarray:
    """Exit numbers (windows, steps) int64, each drawn uniformly."""
    return rng.integers(exits, size=(windows, steps))


def exit_per_stretch(rng: np.random.Generator, windows: int, steps: int, exits: int) -> np.ndarray:
    """Exit numbers (windows, steps) int64: one before a split, one from it on.

    The split, drawn from 1 to `steps`, is common to the batch; the exits are per window.
    """
    split = int(rng.integers(1, steps + 1))
    before, after = rng.integers(exits, size=(2, windows, 1))
    return np.where(np.arange(steps) < split, before, after)


def both_samplings(
    rng: np.random.Generator, windows: int, steps: int, exits: int
) -> tuple[np.ndarray, np.ndarray]:
    """What the shared head is trained on: one sampling of each kind."""
    return tuple(draw(rng, windows, steps, exits) for draw in (exit_per_step, exit_per_stretch))
