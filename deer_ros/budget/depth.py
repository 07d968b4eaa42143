"""How deep a budget permits to go at all: peak, memory and latency need no calibration."""

from __future__ import annotations

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

    A latency permits what typically (p50) ends in time, as the deadline itself is kept while a
    step runs; its first exit must do so nearly always (p99).
    """
    exits, binding = len(config.permitted_exits(max_layer)), "none"
    for name, limit in budget.limits.items():
        if name in UNITS:
            needed, least = _needed(name, budget, config, cost, table, dtype)
            if least > limit:
                raise BudgetError(
                    f"{name} is {limit:g}; this model needs {least:.6g} {UNITS[name]} up to its "
                    f"first exit and {needed[-1]:.6g} with all layers. Raise {name} to at least "
                    f"{least:.6g}."
                )
            fitting = max(1, int(np.searchsorted(needed, limit, side="right")))
            if fitting < exits:
                exits, binding = fitting, name
    return Depth(exits, config.exit_layers[exits - 1], binding)


def _needed(
    name: str,
    budget: Budget,
    config: DeerConfig,
    cost: CostModel,
    table: CostTable | None,
    dtype: str,
) -> tuple[np.ndarray, float]:
    """What every exit needs of that limit, growing, and what the first needs at the least."""
    if name == "latency_ms":
        if table is None:
            raise BudgetError(
                "latency_ms needs a table of milliseconds measured on this machine; `deer bench` "
                "makes one."
            )
        return table.exits_ms("p50"), table.fixed_ms("p99")
    if name == "memory_mib":
        needed = np.array([weights_mib(config, layer, dtype) for layer in config.exit_layers])
    else:
        needed = cost.exit_gflops(budget.scope)
    return needed, float(needed[0])
