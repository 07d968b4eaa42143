"""Messages made of plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from geometry_msgs.msg import PoseStamped, TwistStamped
from std_msgs.msg import Header

from deer_ros.control.command import Command, Pose
from deer_ros.control.episode import Episode
from deer_ros.control.safety import Safety
from deer_ros.control.sampler import Pair, Sampler
from deer_ros.msg import EndEffectorAction, PolicyStatus
from deer_ros.nodes.policy.plan import Plan
from deer_ros.nodes.policy.record import Record
from deer_ros.nodes.stamps import to_time

if TYPE_CHECKING:
    from deer_ros.policy import Step


@dataclass(frozen=True, eq=False)
class Account:
    """One step as it is told: what went in, what came out, what became of it.

    step: None where the model gave no answer. episode, number: of this step. thresholds, max_layer:
    in force in it.
    """

    pair: Pair
    plan: Plan
    instruction: str
    episode: int
    number: int
    age_s: float
    step: Step | None
    thresholds: tuple[float, ...]
    max_layer: int
    commanded: bool
    clamped: tuple[str, ...]


def header(stamp_ns: int, frame_id: str) -> Header:
    """A header for what is published at `stamp_ns`."""
    return Header(stamp=to_time(stamp_ns), frame_id=frame_id)


def action(account: Account, now_ns: int, frame_id: str) -> EndEffectorAction:
    """A step without an answer becomes an action of zeros that is not commanded."""
    message = EndEffectorAction(
        header=header(now_ns, frame_id),
        static_stamp=to_time(account.pair.static.stamp_ns),
        gripper_stamp=to_time(account.pair.gripper.stamp_ns),
        instruction=account.instruction,
        episode=account.episode,
        step=account.number,
        commanded=account.commanded,
    )
    if account.step is not None:
        message.action = account.step.action
        message.gripper = account.step.gripper
        message.gripper_probability = account.step.gripper_probability
        message.exit_layer = account.step.exit_layer
    return message


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


def status(
    safety: Safety,
    episode: Episode,
    sampler: Sampler,
    record: Record,
    instruction: str,
    plan: Plan | None,
    account: Account | None,
) -> PolicyStatus:
    """All but the header. account: of the step that it tells of, None for a stop between steps."""
    message = PolicyStatus(
        instruction=instruction,
        episode=episode.number,
        step=episode.step,
        state=int(safety.state),
        reason=int(safety.reason),
        detail=safety.detail,
        reset_reason=episode.reset_reason,
        average_llm_gflops=record.since_change.mean("llm_gflops"),
        average_step_gflops=record.since_change.mean("step_gflops"),
        images_seen=sampler.seen,
        images_used=sampler.used,
        images_refused=sampler.refused,
    )
    if account is not None:
        _fill_in_account(message, account)
    elif plan is not None:
        message.settings_version = plan.settings.version
        message.max_layer = plan.rule.exits[-1]
        message.thresholds = list(plan.rule.thresholds)
    return message


def _fill_in_account(message: PolicyStatus, account: Account) -> None:
    message.static_stamp = to_time(account.pair.static.stamp_ns)
    message.gripper_stamp = to_time(account.pair.gripper.stamp_ns)
    message.skew_s = account.pair.skew_s
    message.age_s = account.age_s
    message.instruction = account.instruction
    message.episode = account.episode
    message.step = account.number
    message.settings_version = account.plan.settings.version
    message.max_layer = account.max_layer
    message.thresholds = list(account.thresholds)
    message.clamped = list(account.clamped)
    if account.step is not None:
        _fill_in_step(message, account.step)


def _fill_in_step(message: PolicyStatus, step: Step) -> None:
    message.exit_layer = step.exit_layer
    message.deltas = step.deltas
    cost = step.cost
    for name in ("vision_gflops", "language_gflops", "head_gflops", "preprocessing_ms",
                 "vision_ms", "language_ms", "head_ms", "step_ms"):
        setattr(message, name, float(getattr(cost, name)))
