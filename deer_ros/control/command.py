"""From a model's action to what a robot is told: velocities, a target pose, a gripper opening.

Everything leaves in one fixed frame, the robot's base: actions in the tool's frame are turned by
the end effector's orientation first.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from deer_ros.control import rotation

LINEAR_VELOCITY = "linear velocity"
ANGULAR_VELOCITY = "angular velocity"
WORKSPACE = "workspace"
JUMP = "jump"

# A model's values are of the order of 1. What is far beyond is no motion to be shortened, but a
# fault.
LARGEST_VALUE = 1e6
# Every value of an action lies between -1 and 1, as the head's tanh leaves it.
MODEL_JUMP = 2.0
# Parameters have no way to say "none" in an array: a box of two kilometres is none.
NO_WORKSPACE_M = 1000.0


class ActionTooLargeError(ValueError):
    """An action has a value beyond LARGEST_VALUE."""


@dataclass(frozen=True)
class ActionSemantics:
    """What the six values of an action mean (a model's config.json says it, under `action`).

    Times `linear_scale` (m) and `angular_scale` (rad) they are the displacement of one control
    period; times `rate_hz` that is a velocity. frame: `world` (the robot's base) or `tool`.
    rotation: `euler_xyz_increment` or `rotation_vector`. reference: the pose that a displacement is
    added to, the previous `target` or the `measured` one. executions_per_step: so many times in a
    row an action is carried out, a period each, before the next step is due.
    """

    rate_hz: float
    frame: str
    rotation: str
    reference: str
    linear_scale: float
    angular_scale: float
    executions_per_step: int = 1

    @property
    def period_s(self) -> float:
        """Of control: how long one execution of an action lasts."""
        return 1.0 / self.rate_hz

    @property
    def step_rate_hz(self) -> float:
        """Steps per second that the model was trained for."""
        return self.rate_hz / self.executions_per_step

    @property
    def max_linear_velocity(self) -> float:
        """m/s, of the largest action in which no value is beyond 1."""
        return float(np.sqrt(3.0) * self.linear_scale * self.rate_hz)

    @property
    def max_angular_velocity(self) -> float:
        """rad/s, of the largest action in which no value is beyond 1."""
        if self.rotation == "rotation_vector":
            return float(np.sqrt(3.0) * self.angular_scale * self.rate_hz)
        corners = itertools.product((-self.angular_scale, self.angular_scale), repeat=3)
        angles = [np.linalg.norm(_rotation_of_euler(np.array(corner))) for corner in corners]
        return float(max(angles) * self.rate_hz)


@dataclass(frozen=True)
class Limits:
    """Velocities are limited by their norm (m/s, rad/s), positions by a box (two corners, m).

    jump: largest change of each of an action's values, in its units, from one period to the next.
    """

    linear_velocity: float
    angular_velocity: float
    workspace_min: tuple[float, float, float]
    workspace_max: tuple[float, float, float]
    jump: float = np.inf


@dataclass(frozen=True, eq=False)
class Pose:
    """position: float64 (3,), m. orientation: unit quaternion (x, y, z, w)."""

    position: np.ndarray
    orientation: np.ndarray


@dataclass(frozen=True, eq=False)
class Command:
    """linear: (3,) m/s; angular: (3,) rad/s; both in the base frame.

    target: None if no pose is known. clamped: names of the limits that were met.
    """

    linear: np.ndarray
    angular: np.ndarray
    target: Pose | None
    clamped: tuple[str, ...]


class CommandMaker:
    """Turns actions into commands, and remembers what the next one starts from."""

    def __init__(self) -> None:
        self.rest()

    def rest(self) -> None:
        """Start again from standstill at the measured pose: after a stop, or in a new episode."""
        self._target: Pose | None = None
        self._last_action = np.zeros(6)

    def command(
        self,
        action: np.ndarray,
        semantics: ActionSemantics,
        limits: Limits,
        measured: Pose | None,
    ) -> Command:
        """The command for one execution of an action, float (6,) in the model's units.

        Raises ValueError, and changes nothing, if the action is not six finite numbers, if one is
        beyond LARGEST_VALUE (ActionTooLargeError), or if it needs a measured pose (tool frame,
        workspace) and there is none.
        """
        action = _checked(action)
        if measured is None and needs_pose(semantics, limits):
            raise ValueError(
                "the end effector's pose is not known; it is needed for actions in the tool's "
                "frame and for limits of the workspace."
            )
        reference = measured
        if semantics.reference == "target" and self._target is not None:
            reference = self._target

        clamped: list[str] = []
        action = _without_jump(action, self._last_action, limits.jump, clamped)
        linear, angular = _velocities(action, semantics, reference)
        linear = _shortened(linear, limits.linear_velocity, LINEAR_VELOCITY, clamped)
        angular = _shortened(angular, limits.angular_velocity, ANGULAR_VELOCITY, clamped)
        target = None
        if reference is not None:
            target = _moved(reference, linear, angular, semantics.rate_hz, limits, clamped)
        if measured is not None:
            ahead = measured.position + linear / semantics.rate_hz
            outward = _leads_out(measured.position, ahead, limits)
            linear = np.where(outward, 0.0, linear)
            if outward.any():
                clamped.append(WORKSPACE)
        self._target, self._last_action = target, action
        return Command(linear, angular, target, tuple(dict.fromkeys(clamped)))


class GripperCommand:
    """Opens and closes only when the probability is clearly on the other side of one half."""

    def __init__(self) -> None:
        self._opening: float | None = None
        self._episode: int | None = None
        self._repeats = False

    def update(self, probability: float, hysteresis: float, episode: int) -> float | None:
        """The new opening, 1.0 (open) or 0.0 (closed), or None if it stays as it is.

        probability: of open; it must pass 0.5 by `hysteresis` (0 to 0.5). episode: its number;
        another one knows of no opening before it. Raises ValueError, and changes nothing, if the
        probability is not in 0 .. 1.
        """
        if not 0.0 <= probability <= 1.0:
            raise ValueError(f"the gripper's probability is {probability}; it must be 0 to 1.")
        last = self._opening if episode == self._episode else None
        if last is None:
            opening = float(probability > 0.5)
        elif last == 0.0:
            opening = float(probability > 0.5 + hysteresis)
        else:
            opening = float(probability >= 0.5 - hysteresis)
        stays = opening == last and not self._repeats
        self._opening, self._episode, self._repeats = opening, episode, False
        return None if stays else opening

    def repeat(self) -> None:
        """Command the next opening even if it is the one commanded last."""
        self._repeats = True


def needs_pose(semantics: ActionSemantics, limits: Limits) -> bool:
    """Whether no command can be made without the measured pose."""
    return semantics.frame == "tool" or has_workspace(limits)


def has_workspace(limits: Limits) -> bool:
    """Whether the box limits anything."""
    corners = (*limits.workspace_min, *limits.workspace_max)
    return any(abs(corner) < NO_WORKSPACE_M for corner in corners)


def _checked(action: np.ndarray) -> np.ndarray:
    action = np.asarray(action, np.float64)
    sentence = (
        f"the action is {action.tolist()}; it must be six finite numbers, none beyond "
        f"{LARGEST_VALUE:g}."
    )
    if action.shape != (6,) or not np.isfinite(action).all():
        raise ValueError(sentence)
    # Said so that NaN, which passes no comparison, would be refused.
    if not (np.abs(action) <= LARGEST_VALUE).all():
        raise ActionTooLargeError(sentence)
    return action


def _without_jump(
    action: np.ndarray, last: np.ndarray, limit: float, clamped: list[str]
) -> np.ndarray:
    near = np.clip(action, last - limit, last + limit)
    # The last digit is no excess.
    if (np.abs(action - near) > 1e-6).any():
        clamped.append(JUMP)
    return near


def _velocities(
    action: np.ndarray, semantics: ActionSemantics, reference: Pose | None
) -> tuple[np.ndarray, np.ndarray]:
    """Linear and angular velocity in the base frame."""
    linear = action[:3] * semantics.linear_scale
    increment = action[3:] * semantics.angular_scale
    orientation = None if reference is None else reference.orientation
    if semantics.rotation == "rotation_vector":
        turn = increment
    elif semantics.frame == "world" and orientation is not None:
        # As CALVIN defines it: the increments are added to the Euler angles one by one.
        turned = rotation.from_euler(rotation.to_euler(orientation) + increment)
        turn = rotation.to_rotation_vector(
            rotation.multiply(turned, rotation.conjugate(orientation))
        )
    else:
        turn = _rotation_of_euler(increment)
    if semantics.frame == "tool":
        linear = rotation.rotate(orientation, linear)
        turn = rotation.rotate(orientation, turn)
    return linear * semantics.rate_hz, turn * semantics.rate_hz


def _rotation_of_euler(euler: np.ndarray) -> np.ndarray:
    return rotation.to_rotation_vector(rotation.from_euler(euler))


def _shortened(vector: np.ndarray, limit: float, name: str, clamped: list[str]) -> np.ndarray:
    norm = np.linalg.norm(vector)
    # The largest action of the model itself is no excess, whatever the last digit says.
    if norm <= limit * (1 + 1e-6):
        return vector
    clamped.append(name)
    return vector * (limit / norm)


def _moved(
    pose: Pose,
    linear: np.ndarray,
    angular: np.ndarray,
    rate_hz: float,
    limits: Limits,
    clamped: list[str],
) -> Pose:
    """The pose one period later, kept inside the workspace."""
    ahead = pose.position + linear / rate_hz
    # From outside, the way in is free, and there is no jump to the border.
    lowest = np.minimum(limits.workspace_min, pose.position)
    highest = np.maximum(limits.workspace_max, pose.position)
    position = np.clip(ahead, lowest, highest)
    if (position != ahead).any():
        clamped.append(WORKSPACE)
    turn = rotation.from_rotation_vector(angular / rate_hz)
    orientation = rotation.normalised(rotation.multiply(turn, pose.orientation))
    return Pose(position, orientation)


def _leads_out(position: np.ndarray, ahead: np.ndarray, limits: Limits) -> np.ndarray:
    """Per axis, whether moving from `position` to `ahead` ends outside without coming nearer."""
    below = (ahead < limits.workspace_min) & (ahead < position)
    above = (ahead > limits.workspace_max) & (ahead > position)
    return below | above
