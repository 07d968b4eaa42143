"""What a step of a run was: as it is made, and as it is read back out of a bag."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deer_ros.data.bag_format import find_recordings
from deer_ros.data.own_messages import ACTION, STATUS
from deer_ros.data.recording import Recording
from deer_ros.data.stamps import stamp_ns

EARLIER = "/recorded"
"""What a replay puts before the topics on which the node, or a run, had spoken in its input."""


@dataclass(frozen=True, eq=False)
class StepRecord:
    """One step. stamps_ns: of both pictures, static first; together they name the step.

    action: float32 (6,). deltas, thresholds: (exits,), NaN where not evaluated. llm_gflops,
    step_gflops, step_ms: what it cost. full_action: float32 (6,), what the deepest exit answers
    from the same recurrent state; full_deltas: (exits,) of every exit; recorded_action: float32
    (7,), gripper last, what was recorded at that time; None where nothing is known.
    """

    time_ns: int
    stamps_ns: tuple[int, int]
    instruction: str
    episode: int
    step: int
    action: np.ndarray
    gripper: float
    gripper_probability: float
    exit_layer: int
    deltas: np.ndarray
    thresholds: np.ndarray
    llm_gflops: float
    step_gflops: float
    step_ms: float
    full_action: np.ndarray | None = None
    full_deltas: np.ndarray | None = None
    recorded_action: np.ndarray | None = None

    @property
    def to_full_depth(self) -> float:
        """Root mean square difference of the pose to that of full depth; NaN if not known."""
        return rms(self.action, self.full_action)

    @property
    def to_recorded(self) -> float:
        """Root mean square difference of the pose to what was recorded; NaN if not known."""
        known = self.recorded_action
        return rms(self.action, None if known is None else known[:6])


def rms(pose: np.ndarray, other: np.ndarray | None) -> float:
    """Root mean square over the six values; NaN where there is nothing to compare with."""
    if other is None:
        return float("nan")
    return float(np.sqrt(np.mean((np.asarray(pose, np.float64) - other) ** 2)))


def find_run(path: str | Path) -> list[Path]:
    """The bags of an earlier run: a replay's folder, or a bag that the node was recorded in."""
    return find_recordings(path)


def read_records(bag: Path, losses: list[str]) -> dict[str, list[StepRecord]]:
    """The steps that a bag tells of, by topic of the actions. losses: takes what is damaged.

    A step is an action with its status; one that has lost its status is taken without costs. One
    that had no answer, as where a picture could not be read, is none. What had been said in the
    input of a replay is its input's, not its own, unless there is nothing else. Empty where no step
    was made.
    """
    with Recording(bag) as recording:
        spoken = [t.name for t in recording.topics.values() if t.kinds == (ACTION,)]
        own = [name for name in spoken if not name.startswith(EARLIER + "/")]
        topics = own or spoken
        statuses = {t.name for t in recording.topics.values() if t.kinds == (STATUS,)}
        partner = {_other(name): name for name in topics}
        costs: dict[tuple, object] = {}
        actions: dict[str, list] = {name: [] for name in topics}
        for topic, data in _wanted(recording, {*topics, *(statuses & partner.keys())}):
            message = recording.decode(topic, data)
            if not message.exit_layer:
                continue
            if topic in actions:
                actions[topic].append(message)
            else:
                costs[partner[topic], _key(message)] = message
        losses += recording.losses
    return {
        topic: [_record(message, costs.get((topic, _key(message)))) for message in messages]
        for topic, messages in actions.items()
    }


def _wanted(recording: Recording, topics: set[str]) -> Iterator[tuple[str, bytes]]:
    for topic, _, data in recording.messages(topics):
        yield topic, data


def _other(action_topic: str) -> str:
    return action_topic.rpartition("/")[0] + "/status"


def _key(message: object) -> tuple[int, int, int, int]:
    return (stamp_ns(message.static_stamp), stamp_ns(message.gripper_stamp), message.episode,
            message.step)


def _record(action: object, status: object | None) -> StepRecord:
    static_ns, gripper_ns, episode, step = _key(action)
    nothing = np.zeros(0, np.float32)
    nan = float("nan")
    return StepRecord(
        time_ns=stamp_ns(action.header.stamp),
        stamps_ns=(static_ns, gripper_ns),
        instruction=action.instruction,
        episode=episode,
        step=step,
        action=action.action,
        gripper=action.gripper,
        gripper_probability=action.gripper_probability,
        exit_layer=action.exit_layer,
        deltas=nothing if status is None else status.deltas,
        thresholds=nothing if status is None else status.thresholds,
        llm_gflops=nan if status is None else status.language_gflops,
        step_gflops=nan if status is None else (
            status.vision_gflops + status.language_gflops + status.head_gflops),
        step_ms=nan if status is None else status.step_ms,
    )
