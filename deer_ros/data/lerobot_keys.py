"""Which values of a LeRobot dataset are what, for datasets name and order them as they like."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

OPEN = ("high", "low")
FIRST_SIX = (0, 1, 2, 3, 4, 5)


@dataclass(frozen=True)
class LeRobotKeys:
    """static, gripper: the cameras' keys; empty: of the others the only one not, or at, a wrist.

    action, state: keys of the action and the proprioception. pose: places of dx dy dz droll dpitch
    dyaw in an action; None: the first six, unless their names are those of joints. gripper_column:
    place of the gripper's command. gripper_open: whether a high or a low command opens it.
    gripper_threshold: what separates them; None: the middle of the least and the greatest in
    meta/stats.json. linear_scale, angular_scale: metres and radians of one unit of an action; None:
    they are in the model's units.
    """

    static: str = ""
    gripper: str = ""
    action: str = "action"
    state: str = "observation.state"
    pose: tuple[int, ...] | None = None
    gripper_column: int = 6
    gripper_open: str = "high"
    gripper_threshold: float | None = None
    linear_scale: float | None = None
    angular_scale: float | None = None

    def __post_init__(self) -> None:
        places = self.places
        if len(places) != 6 or len({*places, self.gripper_column}) != 7:
            raise ValueError(
                f"pose is {list(places)} and gripper_column {self.gripper_column}; they must be "
                "six places and another one."
            )
        if min(*places, self.gripper_column) < 0:
            raise ValueError("places in an action are counted from 0.")
        if self.gripper_open not in OPEN:
            raise ValueError(f"gripper_open is {self.gripper_open!r}; allowed are high and low.")
        if self.gripper_threshold is not None and not math.isfinite(self.gripper_threshold):
            raise ValueError(
                f"gripper_threshold is {self.gripper_threshold}; it must be a number between the "
                "commands that close and those that open."
            )
        for name in ("linear_scale", "angular_scale"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise ValueError(f"{name} is {value}; it must be a number above 0.")

    @property
    def places(self) -> tuple[int, ...]:
        """Those of `pose`."""
        return FIRST_SIX if self.pose is None else self.pose

    @classmethod
    def parse(cls, texts: Iterable[str]) -> LeRobotKeys:
        """Of texts like `static=observation.images.top` or `pose=0,1,2,3,4,5`."""
        names = [field.name for field in fields(cls)]
        values: dict[str, object] = {}
        for text in texts:
            name, equals, value = text.partition("=")
            if not equals or name not in names:
                raise ValueError(f"{text!r} must be NAME=VALUE with one of {', '.join(names)}.")
            try:
                values[name] = _KINDS.get(name, str)(value)
            except ValueError as error:
                raise ValueError(f"{text!r} has no number where one is needed.") from error
        return cls(**values)


_KINDS = {
    "pose": lambda text: tuple(map(int, text.split(","))),
    "gripper_column": int,
    "gripper_threshold": float,
    "linear_scale": float,
    "angular_scale": float,
}
