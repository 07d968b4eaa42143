"""How deep a budget permits to go at all: peak, memory and latency need no calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cost import CostModel
from deer_ros.budget.memory import weights_mib
from deer_ros.budget.timing import CostTable
from deer_ros.model.config import DeerConfig

UNITS = {"peak_gflops": "GFLOPs", "memory_mib": "MiB", "latency_ms": "ms"}


@dataclass(frozen=True)
class Depth:
    """exits: how many are permitted. max_layer: the layer of the deepest. binding: the budget that
    forbids the next one, or `none`."""

    exits: int
    max_layer: int
    binding: str


def permitted_depth(
    budget: Budget,
    config: DeerConfig,
    cost: CostModel,
    table: CostTable | None,
    max_layer: int | None,
    dtype: str,
) -> Depth:
    """The deepest exit that every limit permits. BudgetError where not even the first one is.

    A latency permits what a typical step gets to in time (see `typical_deadlines_ms`); a step may
    go deeper where it is quicker, and less deep where it is slower.
    """
    exits, binding = len(config.permitted_exits(max_layer)), "none"
    for name, limit in budget.limits.items():
        if name in UNITS:
            needed = _needed(name, budget, config, cost, table, dtype)
            if needed[0] > limit:
                raise BudgetError(_refusal(name, limit, needed, table))
            fitting = max(1, int(np.searchsorted(needed, limit, side="right")))
            if fitting < exits:
                exits, binding = fitting, name
    return Depth(exits, config.exit_layers[exits - 1], binding)


def typical_deadlines_ms(table: CostTable) -> np.ndarray:
    """The shortest deadline by which a typical step gets to each exit: float64 (exits,), growing.

    As `deadline.Deadline` decides: up to the exit before, what it takes in the median; from there
    the high percentile, as the promise is kept by it. The first exit's is all high percentile.
    """
    before = np.concatenate([[0.0], table.exits_ms("p50")[:-1]])
    return np.maximum.accumulate(before + [segment.p99 for segment in table.segments])


def rounded_up(value: float) -> str:
    """Four digits that are not below the value."""
    digits = 3 - math.floor(math.log10(value))
    return f"{math.ceil(value * 10**digits) / 10**digits:g}"


def _needed(
    name: str,
    budget: Budget,
    config: DeerConfig,
    cost: CostModel,
    table: CostTable | None,
    dtype: str,
) -> np.ndarray:
    """What every exit needs of that limit, growing."""
    if name == "latency_ms":
        if table is None:
            raise BudgetError(
                "latency_ms needs a table of milliseconds measured on this machine; `deer bench` "
                "makes one."
            )
        return typical_deadlines_ms(table)
    if name == "memory_mib":
        return np.array([weights_mib(config, layer, dtype) for layer in config.exit_layers])
    return cost.exit_gflops(budget.scope, budget.asks)


def _refusal(name: str, limit: float, needed: np.ndarray, table: CostTable | None) -> str:
    often, whole = "", needed[-1]
    if name == "latency_ms":
        often, whole = " in 99 of 100 steps", table.exits_ms("p99")[-1]
    return (
        f"{name} is {limit:g}; this model needs {needed[0]:.6g} {UNITS[name]} up to its first exit "
        f"and {whole:.6g} with all layers{often}. Raise {name} to at least {rounded_up(needed[0])}."
    )
