"""Parameters of the simulated robot: default, meaning and what is allowed, each said once."""
from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node

from deer_ros.sim.tasks import TASKS

Check = Callable[[object], "str | None"]


def one_of(words: tuple[str, ...]) -> Check:
    return lambda value: None if value in words else f"one of {', '.join(words)}"


def whole_number(low: int, high: int) -> Check:
    def check(value):
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return None if is_whole and low <= value <= high else f"a whole number, {low} to {high}"
    return check


def number(low: float, high: float) -> Check:
    def check(value):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        is_inside = is_number and math.isfinite(value) and low <= value <= high
        return None if is_inside else f"a number, {low:g} to {high:g}"
    return check


def truth(value: object) -> str | None:
    return None if isinstance(value, bool) else "true or false"


def frame_name(value: object) -> str | None:
    return None if isinstance(value, str) and value else "the name of a frame, not empty"


@dataclass(frozen=True)
class Row:
    """allowed: None for a good value, else the words for what is allowed."""

    default: object
    meaning: str
    allowed: Check
    live: bool = False


PARAMETERS = {
    "task": Row("reach", "taken at the next ~/reset", one_of(tuple(TASKS)), live=True),
    "seed": Row(0, "of start and goal places; taken at the next ~/reset",
                whole_number(0, 2**32 - 1), live=True),
    "lockstep": Row(False, "the world waits for each deer/action, and /clock is published", truth),
    "camera_rate": Row(20.0, "Hz, both cameras; real time only", number(0.1, 80), live=True),
    "image_height": Row(128, "pixels", whole_number(16, 2160)),
    "image_width": Row(128, "pixels", whole_number(16, 3840)),
    "render_scale": Row(1.0, "pictures are drawn at this part of their size and then enlarged: "
                        "quicker, but less sharp", number(0.1, 1)),
    "max_episode_steps": Row(0, "control steps until an episode is over; 0: the simulator's",
                             whole_number(0, 1_000_000), live=True),
    "frame_id": Row("base_link", "of ~/end_effector/pose and of the twists that are obeyed; "
                    "the policy's action.frame_id", frame_name),
}


def declare(node: Node) -> None:
    """ValueError, with a sentence, for a bad start value; later ones are refused the same way."""
    for name, row in PARAMETERS.items():
        # Dynamic typing lets a whole number through where a double is asked for.
        descriptor = ParameterDescriptor(description=row.meaning, dynamic_typing=True)
        given = node.declare_parameter(name, row.default, descriptor).value
        problem = _problem(name, given)
        if problem:
            raise ValueError(problem)
    node.add_on_set_parameters_callback(_check_all)


def _check_all(parameters) -> SetParametersResult:
    for parameter in parameters:
        row = PARAMETERS.get(parameter.name)
        if row is None:
            continue
        problem = _problem(parameter.name, parameter.value)
        if not problem and not row.live:
            problem = f"{parameter.name} cannot be changed while the simulator runs: restart it"
        if problem:
            return SetParametersResult(successful=False, reason=problem)
    return SetParametersResult(successful=True)


def _problem(name: str, value: object) -> str | None:
    allowed = PARAMETERS[name].allowed(value)
    return f"{name} must be {allowed}, not {value!r}" if allowed else None
