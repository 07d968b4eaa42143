"""Budgets as the node's parameters say them: one by one, and in presets by name."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.parameter_file import load_yaml

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy
    from deer_ros.stepping.plan import Plan

PREFIX = "budget."
OPTIONS = ("confidence", "scope", "solver", "tracking")
EXIT_PREFIX = "exit."
NAMES = tuple(field.name for field in dataclasses.fields(Budget))
LIMITS = tuple(name for name in NAMES if name not in OPTIONS)

DEFAULT_PRESETS = (
    "{full: {}, balanced: {average_gflops: 0.010}, "
    "low_power: {average_gflops: 0.006, peak_gflops: 0.026}}"
)

Values = Mapping[str, Any]


@lru_cache(maxsize=8)
def read_presets(text: str) -> Mapping[str, Values]:
    """Budgets by the preset's name, checked. Empty text holds none. Raises ValueError."""
    try:
        presets = load_yaml(text) if text.strip() else {}
    except ValueError as error:
        raise ValueError(f"budget.presets is no YAML: {error}.") from error
    if not isinstance(presets, dict):
        raise ValueError(
            f"budget.presets is {text!r}; it must be a YAML mapping of names to budgets, such as "
            "{low_power: {average_gflops: 8.0}}."
        )
    for name, values in presets.items():
        _check_preset(name, values)
    return presets


def _check_preset(name: Any, values: Any) -> None:
    if not isinstance(name, str) or not isinstance(values, dict):
        raise ValueError(
            f"budget.presets has {name!r}: {values!r}; it must be a name and a mapping of budgets."
        )
    unknown = [key for key in values if key not in NAMES]
    if unknown:
        raise ValueError(
            f"the preset {name!r} in budget.presets has {unknown[0]!r}; budgets are "
            f"{', '.join(NAMES)}."
        )
    try:
        Budget(**values)
    except ValueError as error:
        raise ValueError(f"the preset {name!r} in budget.presets: {error}") from error


def combined(own: Values, preset: str, presets: Mapping[str, Values]) -> Budget | None:
    """The budget of `own` values, 0 for no limit, and of a preset, empty for none.

    Of a limit in both the lower one holds; of other values the preset's. None without any limit.
    Raises ValueError where there is no preset of that name.
    """
    if preset and preset not in presets:
        names = ", ".join(presets) or "none"
        raise ValueError(
            f"budget.preset is {preset!r}; budget.presets has {names}. Empty is no preset."
        )
    named = presets[preset] if preset else {}
    values = {option: named.get(option, own[option]) for option in OPTIONS}
    for limit in LIMITS:
        given = [value for value in (own[limit] or None, named.get(limit)) if value is not None]
        values[limit] = min(given, default=None)
    budget = Budget(**values)
    return budget if budget.limits else None


def check(policy: DeerPolicy, plan: Plan) -> None:
    """Raises BudgetError, in the parameters' words, where the plan's budget cannot be met.

    Changes nothing; the policy may make steps meanwhile.
    """
    if plan.budget is None:
        return
    try:
        policy.check_budget(plan.budget, **plan.budget_arguments)
    except BudgetError as error:
        said = in_parameters_words(str(error))
        how = "the service `set_parameters_atomically`" if EXIT_PREFIX in said else "`deer set`"
        raise BudgetError(f"{said} Several parameters change at once with {how}.") from error


def in_parameters_words(sentence: str) -> str:
    """With budgets called as the parameters are."""
    sentence = re.sub(rf"(?<![\w.])({'|'.join(LIMITS)})\b", rf"{PREFIX}\1", sentence)
    return re.sub(r"(?<![\w.])steps_per_decision\b", rf"{EXIT_PREFIX}\g<0>", sentence)
