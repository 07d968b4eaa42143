"""Pictures moved by a few pixels, so that a policy does not hang on where a camera stands.

As in the original, every picture is moved by itself, not a whole window alike. (There the move
never leaves the picture at its first row or column; here all moves are equally likely.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def moves_of(
    rng: np.random.Generator, shape: tuple[int, ...], shift_px: Sequence[int]
) -> np.ndarray:
    """Pixels (x, y) to move by, (*shape, cameras, 2) int64: to each side up to the camera's."""
    if not any(shift_px):
        return np.zeros((*shape, len(shift_px), 2), np.int64)
    limits = np.array(shift_px)[:, None]
    return rng.integers(-limits, limits + 1, size=(*shape, len(shift_px), 2))


def shifted(pictures: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Pictures (N, 2, S, S, 3) as from x, y pixels further on, (N, 2, 2); edges are repeated."""
    if not moves.any():
        return pictures
    side = pictures.shape[2]
    moved = np.empty_like(pictures)
    for n, camera in np.ndindex(pictures.shape[:2]):
        columns, rows = (np.arange(side) + moves[n, camera][:, None]).clip(0, side - 1)
        moved[n, camera] = pictures[n, camera].take(rows, axis=0).take(columns, axis=1)
    return moved
