"""The policy over one recording, in lockstep: every step that is due is made, and time waits."""

from __future__ import annotations

import copy
import dataclasses
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from deer_ros.budget.budget import Budget
from deer_ros.control.safety import Stop
from deer_ros.data import images
from deer_ros.data.recording import Recording
from deer_ros.exit_rule import ExitRule
from deer_ros.observation import Observation
from deer_ros.replay.features import SharedModel, SharedPreprocessor, VirtualClock
from deer_ros.replay.messages import stamp_ns
from deer_ros.replay.output import Output
from deer_ros.replay.recorded import OLDEST_NS, Recorded
from deer_ros.replay.records import StepRecord
from deer_ros.replay.topics import Topics
from deer_ros.stepping import contents
from deer_ros.stepping.brain import Brain
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.robot import pose_of
from deer_ros.stepping.settings import Settings
from deer_ros.stepping.stepper import Job, Outcome, Stepper

if TYPE_CHECKING:
    from deer_ros.budget.timing import CostTable
    from deer_ros.policy import DeerPolicy, Step

NOTHING_MOVES = "a replay commands nothing."
# The node looks this often for what nobody tells.
WATCH_NS = 50_000_000
PICTURES_KEPT = 8
# By then everything has come that was recorded for a step.
SETTLED_NS = OLDEST_NS


@dataclass(frozen=True, eq=False)
class Pictured:
    """A step with what the cameras saw: uint8 RGB (H, W, 3)."""

    record: StepRecord
    observation: Observation


@dataclass
class RunResult:
    """One run over one bag. stops: statuses of a standing policy, by their sentence.

    pictured: the steps whose actions differ most from the recorded ones, or, where there are none,
    from full depth; the largest difference first. sampler: images seen, used, refused.
    """

    label: str
    topics: Topics
    plan: Plan
    steps: list[StepRecord] = field(default_factory=list)
    stops: Counter = field(default_factory=Counter)
    failed: Counter = field(default_factory=Counter)
    pictured: list[Pictured] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    episodes: int = 0
    resets: Counter = field(default_factory=Counter)


@dataclass
class BagResult:
    """One bag. refused: inputs that were not taken, and why; losses: what of the bag is missing."""

    name: str
    duration_s: float
    runs: list[RunResult]
    refused: Counter
    losses: list[str]
    moved: dict[str, str]
    notes: list[str]


@dataclass(frozen=True)
class Asked:
    """A run: its name, the node's settings, where its words go, and a budget of its own or None."""

    label: str
    settings: Settings
    topics: Topics
    budget: Budget | None = None


class Lockstep:
    """Several runs of one model over recordings, that share all that does not depend on the run."""

    def __init__(self, policy: DeerPolicy, table: CostTable | None = None) -> None:
        """table: says what every part takes; without one, that is measured."""
        self.policy = policy
        self.table = table
        clock = VirtualClock()
        self._model = SharedModel(policy.model, clock, table)
        self._preprocessor = SharedPreprocessor(policy.preprocessor, clock, table)
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
        own = [_Run(self, asked, output, first) for asked in runs]
        bag = _Bag(self, recording, topics, own, instruction)
        for count, (topic, recorded_ns, data) in enumerate(recording.messages(), start=1):
            output.copy(topic, recorded_ns, data)
            bag.take(topic, recorded_ns, data)
            on_message(count)
        return bag.result(output.moved)


class _Bag:
    """What comes out of one recording, told to every run in its turn."""

    def __init__(
        self, lockstep: Lockstep, recording: Recording, topics: Topics, runs: list[_Run],
        instruction: str | None,
    ) -> None:
        self._lockstep = lockstep
        self._recording = recording
        self._runs = runs
        self._refused: Counter = Counter()
        self._notes: list[str] = []
        self._recorded = Recorded(lockstep.policy.config.action, topics)
        self._cameras = {topic: camera for camera, topic in topics.cameras.items()}
        self._kinds = {topic: kind for topic, (kind, _) in topics.kinds.items()}
        self._kinds[topics.action] = "action"
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
            list(self._recording.losses), moved, self._notes + self._recorded.notes,
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
                run.stop(run.stepper.clock_jumped(), recorded_ns)
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
            pose = pose_of(message, run.settings.action_frame_id)
            run.stepper.robot = dataclasses.replace(
                run.stepper.robot, pose=pose, pose_stamp_ns=time_ns)

    def _on_joints(self, message: Any) -> None:
        time_ns = stamp_ns(message.header.stamp)
        for run in self._runs:
            run.stepper.robot = dataclasses.replace(
                run.stepper.robot, joints=message, joints_stamp_ns=time_ns)

    def _on_twist(self, message: Any) -> None:
        self._recorded.twist(message)

    def _on_opening(self, message: Any) -> None:
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


class _Run:
    """One run: its settings, what it decides, what it says."""

    def __init__(
        self, lockstep: Lockstep, asked: Asked, output: Output, instruction: str | None
    ) -> None:
        """instruction: the first one, which budgets are checked with."""
        settings = self.settings = asked.settings
        config = lockstep.policy.config
        plan = dataclasses.replace(Plan.of(settings, config), dry=NOTHING_MOVES)
        if asked.budget is not None:
            plan = dataclasses.replace(plan, budget=asked.budget)
        if plan.budget is not None and lockstep.table is None and _is_of_time(plan.budget):
            raise ValueError(
                "budgets of time are kept in virtual time, for which a cost table is needed: "
                "measure one with deer bench, and name it with --cost-table.")
        self.stepper = Stepper(settings)
        self.stepper.adopt(plan)
        self.stepper.set_instruction(settings.instruction)
        self._policy = lockstep.policy_of_a_run()
        if plan.budget is not None:
            # What cannot be met is told before the first step.
            if asked.settings.instruction or instruction:
                self._policy.expect(asked.settings.instruction or instruction)
            self._policy.set_budget(plan.budget, plan.rule.exits[-1], load=False)
        self._full_rule = ExitRule.of(config, lockstep.policy.model.max_layer)
        self._brain = Brain(self._policy, self._read, complain=lambda sentence: None)
        self._output = output
        self._pictures: dict[int, tuple[Any, Any]] = {}
        self._result = RunResult(asked.label, asked.topics, plan)
        self._largest: list[tuple[float, int, Pictured]] = []
        self._number = itertools.count()
        self._pending: deque[tuple[StepRecord, Observation]] = deque()

    def watch(self, now_ns: int) -> None:
        """Notice what nobody tells."""
        stop = self.stepper.watch(now_ns)
        if stop is not None:
            self.stop(stop, now_ns)

    def stop(self, stop: Stop, now_ns: int) -> None:
        """Say why no step is made, once."""
        if self.stepper.stop(stop):
            self._result.stops[f"{stop.reason.name.lower().replace('_', ' ')}"] += 1
            self._say("status", now_ns, contents.status(self.stepper, None))

    def take(self, now_ns: int) -> Job | None:
        """The step that is due, if one is."""
        job = self.stepper.take(now_ns)
        if isinstance(job, Stop):
            self.stop(job, now_ns)
            return None
        return job

    def work(self, job: Job, now_ns: int, pictures: dict[int, tuple[Any, Any]]) -> None:
        """Make a step. pictures: those that other runs have decoded, by message."""
        self._pictures = pictures
        answer = self._brain.answer(
            job.pair, job.plan, job.instruction, job.generation, job.robot
        )
        outcome = self.stepper.judge(job, answer, now_ns)
        self._say("action", now_ns, contents.action(outcome.account))
        if outcome.command is not None:
            self._keep(outcome, answer.observation, now_ns)
            self._brain.commit(outcome.account.step)
            self.stepper.count(outcome.account, now_ns)
        elif outcome.stop is not None:
            self._result.failed[outcome.stop.detail] += 1
            self.stepper.stop(outcome.stop)
        self._say("status", now_ns, contents.status(self.stepper, outcome.account))

    def finished(self) -> RunResult:
        """The result, once all was told."""
        sampler = self.stepper.sampler
        self._result.images = {
            "seen": sampler.seen, "used": sampler.used, "refused": sampler.refused
        }
        self._result.episodes = len({record.episode for record in self._result.steps})
        largest = sorted(self._largest, key=lambda item: -item[0])
        self._result.pictured = [pictured for _, _, pictured in largest]
        return self._result

    def settle(self, until_ns: int | None, recorded: Recorded) -> None:
        """Join steps up to that time, or all, with what was recorded for them."""
        while self._pending and (until_ns is None or self._pending[0][0].time_ns <= until_ns):
            record, observation = self._pending.popleft()
            done = recorded.at(record.stamps_ns[0])
            record = dataclasses.replace(record, recorded_action=done)
            self._result.steps.append(record)
            self._keep_picture(record, observation)

    def _keep(self, outcome: Outcome, observation: Observation, now_ns: int) -> None:
        account = outcome.account
        step: Step = account.step
        everything = copy.copy(self._policy)
        everything.rule = dataclasses.replace(self._full_rule, metric=self._policy.rule.metric)
        explained = everything.explain(observation, account.instruction)
        deltas = np.full(len(self._policy.config.exit_layers), np.nan, np.float32)
        deltas[: len(explained.deltas)] = explained.deltas
        record = StepRecord(
            time_ns=now_ns,
            stamps_ns=(account.pair.static.stamp_ns, account.pair.gripper.stamp_ns),
            instruction=account.instruction,
            episode=account.episode,
            step=account.number,
            action=step.action,
            gripper=step.gripper,
            gripper_probability=step.gripper_probability,
            exit_layer=step.exit_layer,
            deltas=step.deltas,
            thresholds=np.array(account.thresholds, np.float32),
            llm_gflops=step.cost.llm_gflops,
            step_gflops=step.cost.step_gflops,
            step_ms=step.cost.step_ms,
            full_action=explained.actions[-1],
            full_deltas=deltas,
        )
        if account.number == 1:
            self._result.resets[self.stepper.episode.reset_reason] += 1
        self._pending.append((record, observation))

    def _keep_picture(self, record: StepRecord, observation: Observation) -> None:
        difference = record.to_recorded
        if not np.isfinite(difference):
            difference = record.to_full_depth
        if not np.isfinite(difference):
            return
        item = (difference, -next(self._number), Pictured(record, observation))
        if len(self._largest) < PICTURES_KEPT:
            heapq.heappush(self._largest, item)
        elif item > self._largest[0]:
            heapq.heapreplace(self._largest, item)

    def _say(self, what: str, now_ns: int, fields: dict[str, Any]) -> None:
        topic = getattr(self._result.topics, what)
        self._output.say(topic, what, now_ns, self.settings.action_frame_id, fields)

    def _read(self, message: Any) -> np.ndarray:
        """Decoded once for all runs; the message is kept, that another may not get its id."""
        if id(message) not in self._pictures:
            try:
                self._pictures[id(message)] = message, images.to_rgb(message)
            except ValueError as error:
                self._result.failed[str(error)] += 1
                raise
        return self._pictures[id(message)][1]


def _is_of_time(budget: Budget) -> bool:
    return budget.average_ms is not None or budget.latency_ms is not None


def first_instruction(recording: Recording, topic: str) -> str | None:
    """The first text on the topic that is not empty."""
    texts = (recording.decode(topic, data).data for _, _, data in recording.messages([topic]))
    return next((text for text in texts if text.strip()), None)


def all_steps(bags: Sequence[BagResult], run: int) -> Iterator[StepRecord]:
    """Of one run, over all bags."""
    for bag in bags:
        yield from bag.runs[run].steps
