"""One run over one recording: what it decides, and what it says."""

from __future__ import annotations

import copy
import dataclasses
import heapq
import itertools
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from deer_ros.control.safety import Stop
from deer_ros.data import images
from deer_ros.data.bag_topics import Topics
from deer_ros.data.recorded import Recorded
from deer_ros.exit_rule import ExitRule
from deer_ros.observation import Observation
from deer_ros.replay.output import Output
from deer_ros.replay.records import StepRecord
from deer_ros.replay.results import Pictured, RunResult
from deer_ros.stepping import budgets, contents
from deer_ros.stepping.brain import Brain
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.settings import Settings
from deer_ros.stepping.stepper import Job, Outcome, Stepper

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy, Step

BY_TIME = {"average_ms", "latency_ms"}
NOTHING_MOVES = "a replay commands nothing."
PICTURES_KEPT = 8


@dataclass(frozen=True)
class Asked:
    """A run: its name, the node's settings, where its words go."""

    label: str
    settings: Settings
    topics: Topics


class Run:
    """One run: its settings, what it decides, what it says."""

    def __init__(
        self,
        policy: DeerPolicy,
        asked: Asked,
        output: Output,
        instruction: str | None,
    ) -> None:
        """policy: this run's own. instruction: the first one, which budgets are checked with.

        Raises ValueError where a budget cannot be met.
        """
        settings = self.settings = asked.settings
        config = policy.config
        plan = dataclasses.replace(Plan.of(settings, config), dry=NOTHING_MOVES)
        is_of_time = plan.budget is not None and not BY_TIME.isdisjoint(plan.budget.limits)
        if is_of_time and policy.cost_table is None:
            raise ValueError(
                "budgets of time are kept in virtual time, for which a cost table is needed: "
                "measure one with deer bench, and name it with --cost-table.")
        self.stepper = Stepper(settings)
        self.stepper.adopt(plan)
        self.stepper.set_instruction(settings.instruction)
        self._policy = policy
        if plan.budget is not None:
            # What cannot be met is told before the first step.
            if asked.settings.instruction or instruction:
                self._policy.expect(asked.settings.instruction or instruction)
            self._policy.prepare_budgets(plan.budget)
            budgets.check(self._policy, plan)
        self._full_rule = ExitRule.of(config, policy.model.max_layer)
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
