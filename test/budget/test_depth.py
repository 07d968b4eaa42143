"""How deep a budget permits to go: what is told of a latency is what a deadline then does."""

from __future__ import annotations

import dataclasses
import re

import pytest
from cost_tables import cost_table
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_model import tiny_config

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cost import CostModel
from deer_ros.budget.deadline import Deadline, SegmentTimes
from deer_ros.budget.depth import permitted_depth, rounded_up
from deer_ros.budget.timing import CostTable, Milliseconds

CONFIG = tiny_config()  # exits after layers 2, 4 and 6
COST = CostModel(CONFIG, prompt_tokens=6)

# Medians of three segments, and how far the 99th percentile lies above each.
tables = st.builds(
    lambda medians, above: uneven_table(medians, above),
    st.tuples(*[st.floats(0.1, 50)] * 3), st.tuples(*[st.floats(0, 100)] * 3),
)


def uneven_table(medians: tuple[float, ...], above: tuple[float, ...]) -> CostTable:
    """As a shared machine is measured: the first part may once have taken longest of all."""
    table = cost_table(medians)
    segments = tuple(Milliseconds(ms, ms + more) for ms, more in zip(medians, above))
    exits = [segments[0]]
    for number, more in enumerate(above[1:], start=1):
        # The whole is seldom slow where one of its segments is.
        typical = sum(medians[: number + 1])
        exits.append(Milliseconds(typical, typical + more))
    return dataclasses.replace(table, segments=segments, exits=tuple(exits))


def permitted(table: CostTable | None = None, **budget: float):
    return permitted_depth(Budget(**budget), CONFIG, COST, table, None, "float32")


@given(table=tables, latency=st.floats(0.1, 300))
def test_a_latency_permits_the_exit_that_a_typical_step_then_gets_to(table, latency):
    typical = [segment.p50 for segment in table.segments]
    ends = [sum(typical[:k]) + s.p99 for k, s in enumerate(table.segments)]
    assume(latency >= ends[0] and all(abs(latency - end) > 1e-6 for end in ends))
    deadline, elapsed, last = Deadline(latency, SegmentTimes(table)), typical[0], 0
    while last < 2 and deadline.permits(last + 1, elapsed):
        last += 1
        elapsed += typical[last]
    found = permitted(table, latency_ms=latency)
    assert (found.exits, found.max_layer) == (last + 1, CONFIG.exit_layers[last])
    assert found.binding == ("none" if last == 2 else "latency_ms")


@given(table=tables, share=st.floats(0.01, 0.99))
def test_a_latency_is_refused_with_figures_that_go_by_the_high_percentile(table, share):
    first, whole = table.fixed_ms("p99"), table.exits_ms("p99")[-1]
    with pytest.raises(BudgetError) as error:
        permitted(table, latency_ms=share * first)
    said = re.search(r"needs (\S+) ms .* exit and (\S+) with all layers in 99 of 100", str(error))
    assert [float(figure) for figure in said.groups()] == pytest.approx([first, whole], rel=1e-5)
    assert float(said[1]) <= float(said[2])


@given(table=tables, factor=st.floats(1e-4, 1e4))
def test_the_least_limit_that_a_refusal_offers_is_accepted(table, factor):
    limits = {"latency_ms": 1e-3, "memory_mib": 1e-9, "peak_gflops": 1e-12}
    for name, too_little in limits.items():
        with pytest.raises(BudgetError) as error:
            permitted(table, **{name: too_little})
        offered = float(re.search(r"at least (\S+)\.$", str(error.value))[1])
        assert permitted(table, **{name: offered}).exits >= 1
    assert factor <= float(rounded_up(factor)) <= 1.002 * factor
