"""Pictures moved by a few pixels, so that a policy does not hang on where a camera stands.

As in the original, every picture is moved by itself, not a whole window alike. (There the move
never leaves the picture at its first row or column; here all moves are equally likely.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def cuts_of(
    rng: np.random.Generator, shape: tuple[int, ...], shift_px: Sequence[int]
) -> np.ndarray:
    """Corners (x, y) of cut-outs, (*shape, cameras, 2) int64: 0 to twice the camera's shift."""
    if not any(shift_px):
        return np.zeros((*shape, len(shift_px), 2), np.int64)
    limits = 2 * np.array(shift_px)[:, None] + 1
    return rng.integers(0, limits, size=(*shape, len(shift_px), 2))


def shifted(pictures: np.ndarray, cuts: np.ndarray, shift_px: Sequence[int]) -> np.ndarray:
    """Pictures (N, 2, S, S, 3), each widened by `shift_px` of its camera and cut out again.

    cuts: (N, 2, 2), x and y of the corner in the widened picture, whose edges are repeated.
    """
    if not any(shift_px):
        return pictures
    moved = np.empty_like(pictures)
    side = pictures.shape[2]
    for n, camera in np.ndindex(pictures.shape[:2]):
        x, y = cuts[n, camera]
        width = (shift_px[camera],) * 2
        padded = np.pad(pictures[n, camera], (width, width, (0, 0)), mode="edge")
        moved[n, camera] = padded[y : y + side, x : x + side]
    return moved
