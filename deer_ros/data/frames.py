"""The frames of an episode as arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from deer_ros.data.episode import POSE_NAMES, joint_names

Resize = Callable[[np.ndarray], np.ndarray]
"""What is kept of a picture, uint8 (height, width, 3), in the same form and always of one size."""


@dataclass(frozen=True, eq=False)
class Seen:
    """kept: what is left of a picture that was of the shape `recorded`."""

    kept: np.ndarray
    recorded: tuple[int, ...]

    @classmethod
    def of(cls, picture: np.ndarray, resize: Resize | None) -> Seen:
        """resize: None keeps it as it is."""
        return cls(picture if resize is None else resize(picture), picture.shape)


class Pictures:
    """Pictures of one size. They lie in one array from the start: no second copy is ever made."""

    def __init__(self, most: int) -> None:
        """most: how many may come."""
        self._most = most
        self._count = 0
        self._array: np.ndarray | None = None
        self._recorded: tuple[int, ...] = ()

    def add(self, picture: Seen) -> None:
        """One more. ValueError where it was of another size than those before."""
        if self._array is None:
            self._array = np.empty((self._most, *picture.kept.shape), np.uint8)
            self._recorded = picture.recorded
        if picture.recorded != self._recorded:
            raise ValueError(
                f"its pictures have several sizes: {self._recorded} and {picture.recorded}")
        self._array[self._count] = picture.kept
        self._count += 1

    def array(self) -> np.ndarray:
        """Those that came, uint8 (T, height, width, 3)."""
        return self._array[: self._count]


def unbroken(numbers: Sequence[int], stamps_ns: Sequence[int], gap_s: float) -> list[slice]:
    """The stretches of frames in which nothing was left out for longer than the gap.

    numbers: of the frames, as they were before some were left out. stamps_ns: of the same.
    """
    left_out = np.diff(numbers) > 1
    cuts = np.flatnonzero(left_out & (np.diff(stamps_ns) > gap_s * 1e9)) + 1
    return [slice(start, end) for start, end in pairwise([0, *cuts.tolist(), len(numbers)])]


def proprioception(
    said: Sequence[Mapping[str, Any]],
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Pose and joint positions, whichever were recorded, float32 (T, P), and their names."""
    names: list[str] = []
    parts: list[list[list[float]]] = []
    if "pose" in said[0]:
        names += POSE_NAMES
        parts.append([_seven(frame["pose"].pose) for frame in said])
    if "joints" in said[0]:
        joints = list(said[0]["joints"])
        names += joint_names(joints)
        parts.append([[frame["joints"][joint] for joint in joints] for frame in said])
    if not parts:
        return None, ()
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is found where read
        return np.concatenate(parts, axis=1).astype(np.float32), tuple(names)


def _seven(pose: Any) -> list[float]:
    p, q = pose.position, pose.orientation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


def states(said: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """The simulator's knowledge, float32 (T, S), where it was recorded."""
    if "state" not in said[0]:
        return None
    rows = [frame["state"].data for frame in said]
    sizes = {len(row) for row in rows}
    if len(sizes) > 1:
        raise ValueError(f"the number of its state values changes: {sorted(sizes)}")
    return np.array(rows, dtype=np.float32)


def actions(said: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
    """What was done, float32 (T, 7), where it was recorded."""
    if "action" not in said[0]:
        return None
    return np.array([frame["action"] for frame in said], np.float32)
