"""The model's side of a step: pictures in, a checked answer out. For one thread only."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from deer_ros.control.safety import Reason, Stop
from deer_ros.control.sampler import Pair, Picture
from deer_ros.observation import Observation
from deer_ros.stepping.budgets import in_parameters_words
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.robot import RobotState

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy, DepthChange, Step


@dataclass(frozen=True, eq=False)
class Answer:
    """step: finite, and not yet committed; None where there is none.

    thresholds, max_layer: in force in this step. binding: the budget that decided them, `none`, or
    empty without any. unmet: why it cannot be met with this instruction, or empty.
    stop: what is wrong with the model, if anything.
    unreadable: pictures that could not be read; then there is neither an observation nor a step.
    """

    observation: Observation | None = None
    step: Step | None = None
    thresholds: tuple[float, ...] = ()
    max_layer: int = 0
    binding: str = ""
    unmet: str = ""
    stop: Stop | None = None
    unreadable: int = 0


class Brain:
    """A policy, the rule it was last told, and the episode that its recurrent state belongs to."""

    def __init__(
        self,
        policy: DeerPolicy,
        to_rgb: Callable[[Any], np.ndarray],
        complain: Callable[[str], None],
    ) -> None:
        """to_rgb: reads a picture's message, or raises ValueError. complain: told what failed."""
        self._policy = policy
        self._to_rgb = to_rgb
        self._complain = complain
        self._rule: tuple | None = None
        self._generation: int | None = None

    def answer(
        self, pair: Pair, plan: Plan, instruction: str, generation: int, robot: RobotState
    ) -> Answer:
        """Run the model once. Whatever it does, nothing is raised; its state is not advanced.

        A deadline counts from here.
        """
        started_s = self._policy.clock()
        pictures = [self._read(pair.static), self._read(pair.gripper)]
        unreadable = sum(picture is None for picture in pictures)
        if unreadable:
            return Answer(unreadable=unreadable)
        observation = Observation(*pictures)
        try:
            if plan.layout:
                observation = replace(observation, proprioception=robot.proprioception(plan.layout))
        except ValueError as error:
            return self._failed(observation, Reason.MODEL_ERROR, str(error))
        try:
            self._obey(plan, generation)
            step = self._policy.step(
                observation, instruction, commit=False, started_s=started_s)
            check(step)
        except ArithmeticError as error:
            return self._failed(observation, Reason.NOT_FINITE, str(error))
        except Exception as error:
            self._complain(f"the model failed: {_with_traceback(error)}")
            return self._failed(
                observation, Reason.MODEL_ERROR, f"{type(error).__name__}: {error}")
        return self._answered(observation, step)

    def commit(self, step: Step) -> None:
        """Advance the recurrent state."""
        self._policy.commit(step)

    def adopt(self, change: DepthChange) -> None:
        """Run with another number of layers."""
        self._policy.adopt(change)
        # It permits them all now; the next step says again what is permitted.
        self._rule = None

    def _failed(self, observation: Observation, reason: Reason, detail: str) -> Answer:
        return self._answered(observation, None, Stop(reason, detail))

    def _answered(
        self, observation: Observation, step: Step | None, stop: Stop | None = None
    ) -> Answer:
        """With what is in force; it changes only when a step is committed or obeys another plan."""
        policy, unmet = self._policy, self._policy.pacing.unmet
        binding = "" if policy.budget is None else policy.solution.binding
        return Answer(
            observation, step, policy.thresholds, policy.max_layer,
            "none" if unmet else binding, in_parameters_words(unmet or ""), stop)

    def _obey(self, plan: Plan, generation: int) -> None:
        if plan.spends != self._rule:
            self._take_rule(plan)
            self._rule = plan.spends
        if generation != self._generation:
            self._policy.reset()
            self._generation = generation

    def _take_rule(self, plan: Plan) -> None:
        rule = plan.rule
        if plan.budget is None:
            self._policy.set_thresholds(
                rule.thresholds, rule.metric, rule.exits[-1], **rule.cadence.arguments)
        else:
            self._policy.take_budget(plan.budget, **plan.budget_arguments)

    def _read(self, picture: Picture) -> np.ndarray | None:
        try:
            return self._to_rgb(picture.payload)
        except ValueError as error:
            self._complain(str(error))
            return None


def check(step: Step) -> None:
    """Raises FloatingPointError if a value of the answer is not finite or no probability."""
    if not np.isfinite(step.action).all() or not 0.0 <= step.gripper_probability <= 1.0:
        raise FloatingPointError(
            f"the model answered {np.asarray(step.action).tolist()}, gripper "
            f"{step.gripper_probability}; the answer was dropped."
        )


def _with_traceback(error: Exception) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
