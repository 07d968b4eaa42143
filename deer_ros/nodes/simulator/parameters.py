"""Parameters of the simulated robot: default, meaning and what is allowed, each said once."""

from __future__ import annotations

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node

from deer_ros.sim.tasks import TASKS
from deer_ros.stepping.table import LIVE, START, TRUTH, Row, matching, number, one_of

SIDE = number(16, 2048)

TABLE = (
    Row("task", str, "drawer-open", "", one_of(*TASKS), LIVE, "Taken at the next ~/reset."),
    Row("seed", int, 0, "", number(0, 1_000_000_000), LIVE,
        "Of start and goal places; taken at the next ~/reset."),
    Row("lockstep", bool, False, "", TRUTH, START,
        "The world waits for each deer/action, and its time is published on /clock. Otherwise it "
        "moves on the wall clock, by deer/twist and deer/gripper."),
    Row("camera_rate", float, 20.0, "Hz", number(0.1, 80), LIVE,
        "Of both cameras, in real time; in lockstep there are pictures at every control step."),
    Row("image_height", int, 128, "pixels", SIDE, START, "Of the published pictures."),
    Row("image_width", int, 128, "pixels", SIDE, START, "Of the published pictures."),
    Row("render_scale", float, 1.0, "", number(0.1, 1), START,
        "Pictures are drawn at this part of their size and then enlarged: quicker, less sharp."),
    Row("max_episode_steps", int, 0, "steps", number(0, 1_000_000), LIVE,
        "Control steps until an episode is over; 0: the simulator's."),
    Row("frame_id", str, "base_link", "", matching(r"\S+", "the name of a frame, not empty"), START,
        "Of end_effector/pose and of the twists that are obeyed; the policy's action.frame_id."),
)
ROWS = {row.name: row for row in TABLE}


def declare(node: Node) -> None:
    """ValueError with a sentence for a bad start value; later ones are refused with it."""
    for row in TABLE:
        # Dynamic typing lets a whole number through where a double is asked for.
        descriptor = ParameterDescriptor(description=row.meaning, dynamic_typing=True)
        row.convert(node.declare_parameter(row.name, row.default, descriptor).value)
    node.add_on_set_parameters_callback(_check)


def _check(parameters) -> SetParametersResult:
    try:
        for parameter in parameters:
            if parameter.name in ROWS:
                _check_one(ROWS[parameter.name], parameter.value)
    except ValueError as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _check_one(row: Row, value: object) -> None:
    row.convert(value)
    if row.change != LIVE:
        raise ValueError(f"{row.name} is read when the simulator starts: start it again.")
