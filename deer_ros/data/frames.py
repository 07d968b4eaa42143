"""The messages of an episode's frames as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from deer_ros.data.episode import POSE_NAMES, joint_names


def stacked(pictures: list[np.ndarray]) -> np.ndarray:
    """uint8 (T, height, width, 3). ValueError where they have several sizes."""
    shapes = {picture.shape for picture in pictures}
    if len(shapes) > 1:
        raise ValueError(f"its pictures have several sizes: {sorted(shapes)}")
    return np.stack(pictures)


def proprioception(columns: dict[str, list]) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Pose and joint positions, whichever were recorded, and their names if all have one."""
    parts: list[np.ndarray] = []
    names: list[str] = []
    if "pose" in columns:
        parts.append(np.array([_seven(message.pose) for message in columns["pose"]], np.float32))
        names += POSE_NAMES
    if joints := columns.get("joints"):
        parts.append(_rows([message.position for message in joints], "joint positions"))
        if any(list(message.name) != list(joints[0].name) for message in joints):
            raise ValueError("the names of its joints, or their order, change")
        names += joint_names(joints[0].name)
    if not parts:
        return None, ()
    values = np.concatenate(parts, axis=1)
    return values, tuple(names) if len(names) == values.shape[1] else ()


def _seven(pose: Any) -> list[float]:
    p, q = pose.position, pose.orientation
    return [p.x, p.y, p.z, q.x, q.y, q.z, q.w]


def states(columns: dict[str, list]) -> np.ndarray | None:
    """The simulator's knowledge, float32 (T, S), where it was recorded."""
    if "state" not in columns:
        return None
    return _rows([message.data for message in columns["state"]], "state values")


def _rows(rows: list[np.ndarray], name: str) -> np.ndarray:
    sizes = {len(row) for row in rows}
    if len(sizes) > 1:
        raise ValueError(f"the number of its {name} changes: {sorted(sizes)}")
    return np.array(rows, dtype=np.float32)
