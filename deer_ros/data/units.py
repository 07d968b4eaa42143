"""Between a model's actions and the velocities that bags hold."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class ActionUnits(Protocol):
    """What a model's action means, as the `action` part of a model's configuration says it.

    The first three values times `linear_scale` (m) and the last three times `angular_scale` (rad)
    are the displacement of one step; times `rate_hz` they are a velocity. For rotations this holds
    to first order: they are small.
    """

    @property
    def frame(self) -> str: ...

    @property
    def rate_hz(self) -> float: ...

    @property
    def linear_scale(self) -> float: ...

    @property
    def angular_scale(self) -> float: ...


def to_twist(actions: np.ndarray, units: ActionUnits) -> np.ndarray:
    """Velocities, float64 (..., 6) in m/s and rad/s, of pose actions (..., 6)."""
    return np.asarray(actions, dtype=np.float64) * _velocity_of_one(units)


def from_twist(twists: np.ndarray, units: ActionUnits) -> np.ndarray:
    """Pose actions, float32 (..., 6), of velocities (..., 6) in m/s and rad/s.

    What is too large for float32 becomes infinite, which no episode accepts.
    """
    with np.errstate(over="ignore"):
        return (np.asarray(twists, dtype=np.float64) / _velocity_of_one(units)).astype(np.float32)


def check_units(units: ActionUnits) -> None:
    """ValueError where the actions are not displacements in the frame that bags have them in."""
    if units.frame != "world":
        raise ValueError(
            f"the action's frame is {units.frame!r}; bags hold velocities in the frame 'world', "
            "and turning them into another one is not supported"
        )


def _velocity_of_one(units: ActionUnits) -> np.ndarray:
    scales = np.repeat([units.linear_scale, units.angular_scale], 3)
    return scales * units.rate_hz
