"""The policy over one recording, in lockstep: every step that is due is made, and time waits."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from deer_ros.data import images
from deer_ros.data.bag_said import WORLD
from deer_ros.data.bag_topics import STATE, Topics, has
from deer_ros.data.recorded import OLDEST_NS, Recorded
from deer_ros.data.recording import Recording
from deer_ros.data.stamps import stamp_ns
from deer_ros.data.units import check_units
from deer_ros.replay.features import SharedModel, SharedPreprocessor, VirtualClock
from deer_ros.replay.one_run import Asked, Run
from deer_ros.replay.output import Output
from deer_ros.replay.results import BagResult
from deer_ros.replay.virtual_time import VirtualTimes
from deer_ros.stepping.robot import pose_of

if TYPE_CHECKING:
    from deer_ros.budget.timing import CostTable
    from deer_ros.policy import DeerPolicy

# The node looks this often for what nobody tells.
WATCH_NS = 50_000_000
# By then everything has come that was recorded for a step.
SETTLED_NS = OLDEST_NS


class Lockstep:
    """Several runs of one model over recordings, that share all that does not depend on the run."""

    def __init__(self, policy: DeerPolicy, table: CostTable | None = None) -> None:
        """table: says what every part takes; without one, that is measured."""
        self.policy = policy
        self.table = table
        clock = VirtualClock()
        times = None if table is None else VirtualTimes(table, policy.config)
        self._model = SharedModel(policy.model, clock, times)
        self._preprocessor = SharedPreprocessor(policy.preprocessor, clock, times)
        self._clock = clock

    def policy_of_a_run(self) -> DeerPolicy:
        """The policy with a rule and a recurrent state of its own."""
        own = copy.copy(self.policy)
        own.model, own.preprocessor, own.clock = self._model, self._preprocessor, self._clock
        own.cost_table = self.table
        own.reset()
        return own

    def start(self) -> None:
        """Other pictures follow."""
        self._model.start()
        self._preprocessor.start()

    def replay(
        self,
        recording: Recording,
        topics: Topics,
        runs: Sequence[Asked],
        output: Output,
        instruction: str | None,
        on_message: Callable[[int], None] = lambda count: None,
    ) -> BagResult:
        """One recording, from its beginning.

        instruction: to be used instead of those in the bag, or None. on_message: is told how many
        messages have been read. Raises ValueError where a budget cannot be met.
        """
        first = instruction or first_instruction(recording, topics.instruction)
        own = [Run(self.policy_of_a_run(), asked, output, first) for asked in runs]
        bag = _Bag(self, recording, topics, own, instruction)
        for count, (topic, recorded_ns, data) in enumerate(recording.messages(), start=1):
            output.copy(topic, recorded_ns, data)
            bag.take(topic, recorded_ns, data)
            on_message(count)
        return bag.result(output.moved)


class _Bag:
    """What comes out of one recording, told to every run in its turn."""

    def __init__(
        self, lockstep: Lockstep, recording: Recording, topics: Topics, runs: list[Run],
        instruction: str | None,
    ) -> None:
        self._lockstep = lockstep
        self._recording = recording
        self._runs = runs
        self._refused: Counter = Counter()
        self._notes: list[str] = []
        self._recorded = Recorded(lockstep.policy.config.action)
        self._cameras = {topic: camera for camera, topic in topics.cameras.items()}
        self._kinds = {topic: kind for topic, (kind, _) in topics.kinds.items() if kind != STATE}
        self._kinds[topics.action] = "action"
        try:
            check_units(lockstep.policy.config.action)
        except ValueError as error:
            del self._kinds[topics.twist]
            if has(recording, topics.twist):
                self._notes.append(f"{topics.twist} is not compared with: {error}")
        self._notes += [
            f"{topic.name} holds {' and '.join(topic.kinds)}; all of it was copied as {topic.kind}."
            for topic in recording.topics.values() if len(topic.kinds) > 1
        ]
        self._started_ns: int | None = None
        self._now_ns = self._watched_ns = 0
        self._given = instruction is not None
        if instruction is not None:
            for run in runs:
                run.stepper.set_instruction(instruction)

    def take(self, topic: str, recorded_ns: int, data: bytes) -> None:
        """One message, at the time of its recording."""
        if topic not in self._cameras and topic not in self._kinds:
            return
        self._advance(recorded_ns)
        try:
            message = self._recording.decode(topic, data)
            if topic in self._cameras:
                self._picture(self._cameras[topic], message)
            else:
                getattr(self, f"_on_{self._kinds[topic]}")(message)
        except ValueError as error:
            self._refused[f"{topic}: {error}"] += 1
            if topic in self._cameras:
                for run in self._runs:
                    run.stepper.sampler.count_unreadable()
        self._steps()

    def result(self, moved: dict[str, str]) -> BagResult:
        """What came of it, once all messages were taken."""
        for run in self._runs:
            run.settle(None, self._recorded)
        seconds = 0.0 if self._started_ns is None else (self._now_ns - self._started_ns) / 1e9
        return BagResult(
            self._recording.path.stem if self._recording.path.is_file() else
            self._recording.path.name,
            seconds, [run.finished() for run in self._runs], self._refused,
            list(self._recording.losses), moved,
            [*(f"{note}." for note in self._recording.notes), *self._notes],
        )

    def _advance(self, recorded_ns: int) -> None:
        if self._started_ns is None:
            self._started_ns = self._now_ns = self._watched_ns = recorded_ns
            for run in self._runs:
                run.stepper.activate()
            return
        timeout_ns = round(self._runs[0].settings.safety_input_timeout * 1e9)
        if recorded_ns < self._now_ns - timeout_ns:
            self._refused["the clock of the recording was set back"] += 1
            self._now_ns = self._watched_ns = recorded_ns
            for run in self._runs:
                run.settle(None, self._recorded)
                run.stop(run.stepper.clock_jumped(), recorded_ns)
            self._recorded.forget()
            return
        # Nothing new is noticed once the inputs are stale.
        until_ns = min(recorded_ns, self._now_ns + timeout_ns + 4 * WATCH_NS)
        for tick_ns in range(self._watched_ns + WATCH_NS, until_ns, WATCH_NS):
            self._watched_ns = tick_ns
            for run in self._runs:
                run.watch(tick_ns)
        self._now_ns = max(self._now_ns, recorded_ns)
        self._watched_ns = max(self._watched_ns, self._now_ns - WATCH_NS)
        for run in self._runs:
            run.settle(self._now_ns - SETTLED_NS, self._recorded)
        # A step's pictures may be as old as that.
        self._recorded.forget_before(self._now_ns - SETTLED_NS - timeout_ns)

    def _picture(self, camera: str, message: Any) -> None:
        images.check(message)
        time_ns = stamp_ns(message.header.stamp)
        newest_ns = self._runs[0].stepper.sampler.newest_ns(camera)
        stops = [run.stepper.offer(camera, time_ns, message) for run in self._runs]
        if newest_ns is not None and time_ns <= newest_ns and stops[0] is None:
            what = "that came before" if time_ns == newest_ns else "older than the one before"
            self._refused[f"camera/{camera}: a stamp {what}"] += 1
        for run, stop in zip(self._runs, stops):
            if stop is not None:
                run.stop(stop, self._now_ns)

    def _on_instruction(self, message: Any) -> None:
        if self._given:
            self._refused["/instruction: another instruction was given"] += 1
            return
        for run in self._runs:
            if run.stepper.set_instruction(message.data):
                stop = run.stepper.no_instruction()
                if stop is not None:
                    run.stop(stop, self._now_ns)

    def _on_pose(self, message: Any) -> None:
        time_ns = stamp_ns(message.header.stamp)
        for run in self._runs:
            # As in a demonstration: `deer collect` records it in `world`.
            is_fixed = message.header.frame_id in ("", WORLD)
            frame_id = message.header.frame_id if is_fixed else run.settings.action_frame_id
            pose = pose_of(message, frame_id)
            run.stepper.robot = run.stepper.robot.with_pose(pose, time_ns)

    def _on_joints(self, message: Any) -> None:
        time_ns = stamp_ns(message.header.stamp)
        for run in self._runs:
            run.stepper.robot = run.stepper.robot.with_joints(message, time_ns)

    def _on_twist(self, message: Any) -> None:
        parts = (message.twist.linear, message.twist.angular)
        if not all(math.isfinite(getattr(part, axis)) for part in parts for axis in "xyz"):
            raise ValueError("a velocity is not finite.")
        fixed = self._runs[0].settings.action_frame_id
        if message.header.frame_id not in ("", WORLD, fixed):
            raise ValueError(
                f"a velocity is in the frame {message.header.frame_id!r} and must be in {fixed!r} "
                f"(action.frame_id) or {WORLD!r} to be compared with, since nothing is transformed."
            )
        self._recorded.twist(message)

    def _on_opening(self, message: Any) -> None:
        if not math.isfinite(message.data):
            raise ValueError("an opening of the gripper is not finite.")
        self._recorded.opening(self._now_ns, message)

    def _on_action(self, message: Any) -> None:
        self._recorded.action(message)

    def _steps(self) -> None:
        """Make the steps that are due: in all runs at once, as they use the same pictures."""
        while True:
            jobs = [(run, job) for run in self._runs if (job := run.take(self._now_ns)) is not None]
            if not jobs:
                return
            pictures: dict[int, tuple[Any, Any]] = {}
            used = None
            for run, job in jobs:
                stamps = job.pair.static.stamp_ns, job.pair.gripper.stamp_ns
                if stamps != used:
                    self._lockstep.start()
                    pictures.clear()
                    used = stamps
                run.work(job, self._now_ns, pictures)


def first_instruction(recording: Recording, topic: str) -> str | None:
    """The first text on the topic that is not empty."""
    for _, _, data in recording.messages([topic]):
        try:
            text = recording.decode(topic, data).data
        except ValueError:  # counted where it is its turn
            continue
        if text.strip():
            return text
    return None
