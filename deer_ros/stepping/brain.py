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
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.robot import RobotState

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy, DepthChange, Step


@dataclass(frozen=True, eq=False)
class Answer:
    """step: finite, and not yet committed; None where there is none.

    thresholds, max_layer: in force in this step. stop: what is wrong with the model, if anything.
    unreadable: pictures that could not be read; then there is neither an observation nor a step.
    """

    observation: Observation | None = None
    step: Step | None = None
    thresholds: tuple[float, ...] = ()
    max_layer: int = 0
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
        self._plan: Plan | None = None
        self._generation: int | None = None

    def answer(
        self, pair: Pair, plan: Plan, instruction: str, generation: int, robot: RobotState
    ) -> Answer:
        """Run the model once. Whatever it does, nothing is raised; its state is not advanced."""
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
            step = self._policy.step(observation, instruction, commit=False)
            check(step)
        except ArithmeticError as error:
            return self._failed(observation, Reason.NOT_FINITE, str(error))
        except Exception as error:
            self._complain(f"the model failed: {_with_traceback(error)}")
            return self._failed(
                observation, Reason.MODEL_ERROR, f"{type(error).__name__}: {error}")
        return Answer(observation, step, self._policy.thresholds, self._policy.max_layer)

    def commit(self, step: Step) -> None:
        """Advance the recurrent state."""
        self._policy.commit(step)

    def adopt(self, change: DepthChange) -> None:
        """Run with another number of layers."""
        self._policy.adopt(change)
        # It permits them all now; the next step says again what is permitted.
        self._plan = None

    def _failed(self, observation: Observation, reason: Reason, detail: str) -> Answer:
        return Answer(
            observation, None, self._policy.thresholds, self._policy.max_layer,
            Stop(reason, detail))

    def _obey(self, plan: Plan, generation: int) -> None:
        if plan is not self._plan:
            self._take_rule(plan)
            self._plan = plan
        if generation != self._generation:
            self._policy.reset()
            self._generation = generation

    def _take_rule(self, plan: Plan) -> None:
        rule = plan.rule
        if plan.budget is None:
            self._policy.set_thresholds(
                rule.thresholds, rule.metric, rule.exits[-1], rule.steps_per_decision)
        else:
            self._policy.set_budget(
                plan.budget, rule.exits[-1], None, rule.steps_per_decision, load=False)

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
