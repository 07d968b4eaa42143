"""Closed-loop episodes of a policy, in whatever simulator, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from operator import index
from typing import Any, Protocol

import numpy as np

from deer_ros.budget.budget import Budget
from deer_ros.budget.solver import finite
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy

_JSON_TYPES = {"bool": int, "int": int, "float": (int, float), "str": str}
_MOST = 1e15  # of anything that is counted or measured


class Environment(Protocol):
    """A simulated robot in lockstep, in the middle of an episode.

    instruction: what it is to do. success: whether that is done, latched.
    """

    instruction: str
    success: bool

    def observation(self) -> Observation:
        """What its cameras see now."""

    def step(self, action: np.ndarray, gripper: float) -> None:
        """One control period: action float32 (6,) in the model's units, gripper -1 close, +1 open.
        """


@dataclass(frozen=True)
class Setting:
    """How deep a policy runs: one fixed exit, thresholds, a preset, a budget, or all the way."""

    name: str
    exit_layer: int | None = None
    thresholds: tuple[float, ...] | None = None
    preset: str | None = None
    budget: Budget | None = None

    @property
    def definition(self) -> dict[str, Any]:
        """All but the name, JSON-ready: what makes two settings the same."""
        values = asdict(self)
        del values["name"]
        if self.thresholds is not None:
            values["thresholds"] = finite(self.thresholds)
        return {name: value for name, value in values.items() if value is not None}

    def apply(self, policy: DeerPolicy) -> int | None:
        """Tell the policy; the `exit_layer` for its steps. ValueError where it does not fit.

        A budget's tracking starts anew, and layers that one of memory let go of are read again, so
        that episodes do not depend on their order.
        """
        config = policy.config
        # The model's own cadence, as its rule says.
        cadence = {"steps_per_decision": None, "max_layer_between": None}
        policy.set_thresholds(config.thresholds, config.metric, **cadence)
        policy.adopt(policy.load_layers(None))
        if self.preset is not None:
            policy.set_preset(self.preset)
            return None
        if self.thresholds is not None:
            policy.set_thresholds(self.thresholds, config.metric, **cadence)
            return None
        if self.budget is not None:
            policy.set_budget(self.budget)
            return None
        return policy.max_layer if self.exit_layer is None else self.exit_layer


@dataclass(frozen=True)
class Episode:
    """What came of an episode. Means are over its steps.

    periods: control periods that it lasted, one or more per step. exits: steps by exit layer.
    """

    success: bool
    steps: int
    periods: int
    mean_exit_layer: float
    mean_llm_gflops: float
    mean_step_gflops: float
    mean_step_ms: float
    exits: dict[int, int] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Episode:
        """What `asdict` and JSON made of one. TypeError, KeyError, AttributeError or ValueError
        where it is none."""
        for kept in fields(cls):
            value = values.get(kept.name)
            if kept.type in _JSON_TYPES and not isinstance(value, _JSON_TYPES[kept.type]):
                raise TypeError(f"its {kept.name} is {value!r}")
            least = 1 if kept.name == "steps" else 0
            if isinstance(value, (int, float)) and not least <= value <= _MOST:
                raise ValueError(f"its {kept.name} is {value!r}; {least} to {_MOST:g} can be")
        exits = {int(layer): index(steps) for layer, steps in values["exits"].items()}
        return cls(**{**values, "exits": exits})


def run_episode(
    policy: DeerPolicy, environment: Environment, exit_layer: int | None, max_periods: int
) -> Episode:
    """From a new recurrent state until success: one step at least, `max_periods` at most.

    The action of a step is carried out as often as the model's configuration says.
    """
    policy.reset()
    spent: list[tuple[float, ...]] = []
    periods = 0
    while not spent or (periods < max_periods and not environment.success):
        step = policy.step(environment.observation(), environment.instruction, exit_layer)
        cost = step.cost
        spent.append((step.exit_layer, cost.llm_gflops, cost.step_gflops, cost.step_ms))
        for _ in range(policy.config.action.executions_per_step):
            environment.step(step.action, step.gripper)
            periods += 1
            if environment.success or periods == max_periods:
                break
    means = np.mean(spent, axis=0).tolist()
    exits = dict(sorted(Counter(layer for layer, *_ in spent).items()))
    return Episode(bool(environment.success), len(spent), periods, *means, exits)


def mean_per_step(episodes: Sequence[Episode], quantity: str) -> float:
    """Mean of a `mean_...` figure over all steps of all episodes, failed ones too."""
    return float(np.average(
        [getattr(episode, quantity) for episode in episodes],
        weights=[episode.steps for episode in episodes],
    ))  # fmt: skip
