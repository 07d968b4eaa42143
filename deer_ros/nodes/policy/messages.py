"""Messages made of plain values."""

from __future__ import annotations

from typing import Any, TypeVar

from geometry_msgs.msg import PoseStamped, TwistStamped
from std_msgs.msg import Header

from deer_ros.control.command import Command, Pose
from deer_ros.msg import EndEffectorAction, PolicyStatus
from deer_ros.nodes.stamps import to_time
from deer_ros.stepping import contents
from deer_ros.stepping.stepper import Account, Stepper

Message = TypeVar("Message", EndEffectorAction, PolicyStatus)


def header(stamp_ns: int, frame_id: str) -> Header:
    """A header for what is published at `stamp_ns`."""
    return Header(stamp=to_time(stamp_ns), frame_id=frame_id)


def action(account: Account, now_ns: int, frame_id: str) -> EndEffectorAction:
    """A step without an answer becomes an action of zeros that is not commanded."""
    message = _filled(EndEffectorAction(), contents.action(account))
    message.header = header(now_ns, frame_id)
    return message


def status(stepper: Stepper, account: Account | None) -> PolicyStatus:
    """All but the header. account: of the step that it tells of, None for a stop between steps."""
    return _filled(PolicyStatus(), contents.status(stepper, account))


def twist(command: Command | None, now_ns: int, frame_id: str) -> TwistStamped:
    """None is a velocity of zero."""
    message = TwistStamped(header=header(now_ns, frame_id))
    if command is not None:
        for part, values in (("linear", command.linear), ("angular", command.angular)):
            vector = getattr(message.twist, part)
            vector.x, vector.y, vector.z = map(float, values)
    return message


def pose(target: Pose, now_ns: int, frame_id: str) -> PoseStamped:
    """A pose in the base's frame."""
    message = PoseStamped(header=header(now_ns, frame_id))
    place, turn = message.pose.position, message.pose.orientation
    place.x, place.y, place.z = map(float, target.position)
    turn.x, turn.y, turn.z, turn.w = map(float, target.orientation)
    return message


def _filled(message: Message, fields: dict[str, Any]) -> Message:
    for name, value in fields.items():
        setattr(message, name, to_time(value) if name.endswith("_stamp") else value)
    return message
