"""Where a search starts, and where it looks."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_samples import make_calibration, with_frontiers
from tiny_model import tiny_config

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cost import CostModel
from deer_ros.budget.solution import solve
from deer_ros.budget.solver import exits_taken
from deer_ros.model.config import ExitConfig
from deer_ros.search.space import Space, searched_exits
from deer_ros.search.start import dearest, find_start, possible

TOKENS = 6
COST = CostModel(tiny_config(), TOKENS).exit_gflops("llm")

starts = st.lists(
    st.sampled_from([-1e8, -1.0, 0.0, 1e8]) | st.floats(1e-6, 1e3), min_size=3, max_size=3
)


@given(starts, st.floats(1.01, 100), st.booleans())
def test_all_that_is_looked_at_is_above_zero_and_within_the_span(start, span, calibrated):
    deltas = make_calibration().deltas() if calibrated else None
    space = Space.around((*start[:2], 1e8), (0, 1), span, deltas)
    for low, high in zip(space.low, space.high):
        assert 0 < low < high < math.inf
        assert high / low == pytest.approx(span**2)
    point = space.parameters((*start[:2], 1e8))
    assert all(low <= point[name] <= high for name, (low, high) in space.bounds.items())
    if not calibrated:
        for k in (0, 1):
            if 0 < start[k] < 1e8:
                assert point[f"exit_{k}"] == pytest.approx(start[k])


def test_exits_that_are_never_or_always_taken_are_looked_for_where_their_deltas_lie():
    deltas = make_calibration().deltas()
    space = Space.around((-1e8, 1e8, 1e8), (0, 1), 2.0, deltas)
    assert space.low[0] < np.quantile(deltas[0], 0.02) < space.high[0]
    assert space.low[1] < np.quantile(deltas[1], 0.98) < space.high[1]


def test_a_start_next_to_zero_leaves_room_below_it_on_a_logarithmic_scale():
    space = Space.around((5e-324, 1e-320, 1e8), (0, 1), 1e12)
    assert all(0 < low < high < math.inf for low, high in zip(space.low, space.high))


def test_thresholds_that_are_not_searched_are_the_starts():
    space = Space.around((0.1, 0.2, 1e8), (1,), 2.0)
    assert space.thresholds((0.1, 0.2, 1e8), {"exit_1": 0.3}) == (0.1, 0.3, 1e8)


@pytest.mark.parametrize("span", [1.0, 0.5, -2.0, math.nan, math.inf, 1e300])
def test_a_span_that_leaves_nothing_to_look_at_is_refused(span):
    with pytest.raises(ValueError, match="span is .* above 1"):
        Space.around((0.1, 0.2, 1e8), (0, 1), span)


@pytest.mark.parametrize(("layers", "deepest", "exits"), [
    ((2, 4, 6), 6, (0, 1)), ((2, 4, 6), 4, (0,)), ((1, 2, 3), 3, (1,)),
])
def test_the_deepest_exit_and_one_after_layer_1_have_no_threshold_that_matters(
    layers, deepest, exits
):
    assert searched_exits(layers, deepest, "l2") == exits


def test_an_exit_after_layer_1_is_searched_where_nothing_is_compared():
    assert searched_exits((1, 2, 3), 3, "learned") == (0, 1)


@pytest.mark.parametrize(("layers", "deepest"), [((2, 4, 6), 2), ((6,), 6), ((1, 2), 2)])
def test_a_model_with_one_exit_has_nothing_to_search(layers, deepest):
    with pytest.raises(ValueError, match="no thresholds to search"):
        searched_exits(layers, deepest, "l2")


def test_a_calibrated_model_starts_from_what_is_solved_for_the_budget():
    config, calibration = tiny_config(), with_frontiers(make_calibration(), COST)
    budget = Budget(average_gflops=float(COST[0] + COST[2]) / 2)
    start = find_start(config, budget, TOKENS, 6, calibration)
    solution = solve(
        budget, config, CostModel(config, TOKENS), None, calibration, one_row=True
    )
    assert start.solved and start.thresholds[2] == 1e8
    assert start.thresholds[:2] == solution.thresholds[:2]


@pytest.mark.parametrize(
    ("share", "binds"), [(0.2, True), (0.49, True), (0.51, False), (0.9, False)]
)
def test_thresholds_are_solved_for_the_cadence_that_trials_go_by(share, binds):
    """Not for every step, which `deer solve` turns to where the cadence spends less than asked."""
    config = tiny_config(exits=ExitConfig(2, steps_per_decision=2, max_layer_between=2))
    calibration = with_frontiers(make_calibration(), COST)
    asked = float(COST[0] + share * (COST[2] - COST[0]))
    start = find_start(config, Budget(average_gflops=asked), TOKENS, 6, calibration)
    deltas = calibration.deltas()
    decided = COST[exits_taken(deltas, np.array(start.thresholds, np.float32))].mean()
    spent = (COST[0] + decided) / 2
    assert spent <= asked and (spent > 0.9 * asked or not binds)
    most = dearest(config, "llm", TOKENS, 6)
    assert (asked <= most) == binds and most == pytest.approx((COST[0] + COST[2]) / 2)
    assert binds or spent == pytest.approx(most)


@pytest.mark.parametrize("budget", [Budget(), Budget(average_gflops=float(COST[1]))])
def test_others_start_from_the_models_own_thresholds(budget):
    start = find_start(tiny_config(), budget, TOKENS, 6)
    assert start.thresholds == (0.01, 0.01, 1e8) and not start.solved
    assert find_start(tiny_config(), budget, TOKENS, 4).thresholds == (0.01, 1e8, 1e8)


def test_a_model_without_thresholds_starts_at_full_depth():
    config = tiny_config(exits=ExitConfig(interval=2))
    assert find_start(config, Budget(), TOKENS, 6).thresholds == (-1e8, -1e8, 1e8)


def test_thresholds_that_are_given_are_the_start():
    given = find_start(tiny_config(), Budget(), TOKENS, 6, None, (0.5, math.inf, -1))
    assert given.thresholds == (0.5, 1e8, 1e8)
    for wrong in ((0.5,), (math.nan, 1, 1)):
        with pytest.raises(ValueError, match="thresholds"):
            find_start(tiny_config(), Budget(), TOKENS, 6, None, wrong)


@pytest.mark.parametrize("scope", ["llm", "step"])
def test_a_budget_below_the_first_exit_is_refused_with_its_cost(scope):
    least = CostModel(tiny_config(), TOKENS).exit_gflops(scope)[0]
    find_start(tiny_config(), Budget(average_gflops=least, scope=scope), TOKENS, 6)
    for calibration in (None, with_frontiers(make_calibration(), COST)):
        with pytest.raises(BudgetError, match=f"at least {least:.6g} GFLOPs"):
            budget = Budget(average_gflops=0.9 * least, scope=scope)
            find_start(tiny_config(), budget, TOKENS, 6, calibration)


@pytest.mark.parametrize("scope", ["llm", "step"])
@pytest.mark.parametrize("metric", ["l2", "learned"])
def test_whatever_a_step_costs_is_possible_and_what_is_possible_is_no_wider(scope, metric):
    config = tiny_config()
    config = config.replace(head=dataclasses.replace(config.head, gate_width=8))
    for deepest, layer in enumerate(config.exit_layers):
        least, most = possible(config, scope, layer)
        costs = [
            CostModel(config, tokens, metric).exit_gflops(scope, asked)[: deepest + 1]
            for tokens in range(4, config.prompt.max_tokens + 1) for asked in (True, False)
        ]
        assert least == pytest.approx(np.min(costs)) and least <= np.min(costs)
        assert np.max(costs) <= most <= 1.1 * np.max(costs)
