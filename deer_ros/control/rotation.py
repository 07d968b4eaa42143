"""Rotations: quaternions (x, y, z, w), rotation vectors (rad) and Euler angles, all float64 arrays.

Euler angles are roll, pitch, yaw about the fixed axes x, y, z in this order (as PyBullet, URDF and
CALVIN have them).
"""

from __future__ import annotations

import numpy as np

IDENTITY = np.array([0.0, 0.0, 0.0, 1.0])


def normalised(quaternion: np.ndarray) -> np.ndarray:
    """Unit quaternion of the same direction. ValueError where it has no direction."""
    quaternion = np.asarray(quaternion, np.float64)
    norm = np.linalg.norm(quaternion)
    if not (np.isfinite(norm) and norm > 1e-6):
        raise ValueError(f"{quaternion.tolist()} is no orientation: its length is {norm}.")
    return quaternion / norm


def multiply(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The rotation `right` followed by `left`."""
    left_vector, left_w = left[:3], left[3]
    right_vector, right_w = right[:3], right[3]
    vector = left_w * right_vector + right_w * left_vector + np.cross(left_vector, right_vector)
    return np.append(vector, left_w * right_w - left_vector @ right_vector)


def conjugate(quaternion: np.ndarray) -> np.ndarray:
    """The inverse of a unit quaternion."""
    return quaternion * np.array([-1.0, -1.0, -1.0, 1.0])


def rotate(quaternion: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """`vector` (3,) turned by a unit quaternion."""
    axis, w = quaternion[:3], quaternion[3]
    twice = 2.0 * np.cross(axis, vector)
    return vector + w * twice + np.cross(axis, twice)


def from_rotation_vector(vector: np.ndarray) -> np.ndarray:
    """Unit quaternion of a rotation by |vector| rad about its direction."""
    half = 0.5 * np.linalg.norm(vector)
    # sin(half) / (2 half), which numpy's sinc gives without dividing by zero.
    return np.append(0.5 * np.sinc(half / np.pi) * vector, np.cos(half))


def to_rotation_vector(quaternion: np.ndarray) -> np.ndarray:
    """The shortest rotation vector of a unit quaternion, of length 0 to pi."""
    if quaternion[3] < 0:
        quaternion = -quaternion
    sine = np.linalg.norm(quaternion[:3])
    if sine < 1e-12:
        return 2.0 * quaternion[:3]
    return 2.0 * np.arctan2(sine, quaternion[3]) * quaternion[:3] / sine


def from_euler(euler: np.ndarray) -> np.ndarray:
    """Unit quaternion of roll, pitch, yaw."""
    x, y, z = (from_rotation_vector(angle * axis) for angle, axis in zip(euler, np.eye(3)))
    return multiply(z, multiply(y, x))


def to_euler(quaternion: np.ndarray) -> np.ndarray:
    """Roll, pitch, yaw of a unit quaternion; at a pitch of 90 degrees the roll is taken as 0."""
    x, y, z, w = quaternion
    sine = 2.0 * (w * y - x * z)
    if abs(sine) > 1.0 - 1e-9:
        return np.array([0.0, np.copysign(np.pi / 2, sine), -2.0 * np.copysign(1, sine)
                         * np.arctan2(x, w)])
    roll = np.arctan2(2.0 * (w * x + y * z), 1.0 - 2.0 * (x * x + y * y))
    yaw = np.arctan2(2.0 * (w * z + x * y), 1.0 - 2.0 * (y * y + z * z))
    return np.array([roll, np.arcsin(sine), yaw])
