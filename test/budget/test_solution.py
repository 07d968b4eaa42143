"""From budgets to exit rules."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from cost_tables import cost_table
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_samples import make_calibration, with_frontiers
from tiny_model import tiny_config

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.cost import CostModel
from deer_ros.budget.memory import weights_mib
from deer_ros.budget.risk import p_values
from deer_ros.budget.solution import solve
from deer_ros.budget.solver import NEVER, exits_taken
from deer_ros.model.config import ExitConfig

CONFIG = tiny_config()
COST = CostModel(CONFIG, prompt_tokens=6)
LLM, STEP = COST.exit_gflops("llm"), COST.exit_gflops("step")
TABLE = cost_table((10.0, 4.0, 3.0))
CALIBRATION = with_frontiers(make_calibration(), LLM, losses=300)
SOLVERS = ("optimal", "exponential", "gaussian", "gamma")


GATED = tiny_config(
    head=dataclasses.replace(CONFIG.head, gate_width=8, gate_guesses="success"),
    exits=ExitConfig(2, "learned"),
)
GUESSES = np.random.default_rng(0).exponential((0.3, 0.1, 0.7), (400, 3)).astype(np.float32)
OF_SUCCESS = with_frontiers(
    make_calibration(
        steps=400, metric="learned", expected_losses=GUESSES.clip(0, 1), guesses_success=True
    ),
    LLM,
)


def solved(calibration=CALIBRATION, table=TABLE, config=CONFIG, max_layer=None, **budget):
    return solve(Budget(**budget), config, COST, table, calibration, max_layer)


def between(values: np.ndarray, place: float) -> float:
    return float(values[0] + place * (values[-1] - values[0]))


@pytest.mark.parametrize("solver", SOLVERS)
@given(st.floats(0.02, 0.98), st.floats(1.0, 30.0))
@settings(max_examples=15)
def test_one_row_for_all_steps_keeps_its_budgets_and_is_what_is_expected(solver, place, ms):
    asked = dict(average_gflops=between(LLM, place), average_ms=max(ms, 10.0), solver=solver)
    mixed, found = (
        solve(Budget(**asked), CONFIG, COST, TABLE, CALIBRATION, one_row=one_row)
        for one_row in (False, True)
    )
    taken = exits_taken(CALIBRATION.deltas(), np.array(found.thresholds, np.float32))
    shares = np.bincount(taken, minlength=3) / len(taken)
    assert found.exit_shares == pytest.approx(tuple(shares))
    assert found.expected_llm_gflops == pytest.approx(float(shares @ LLM))
    assert found.expected_llm_gflops <= asked["average_gflops"] * (1 + 1e-9)
    assert found.expected_ms <= asked["average_ms"] * (1 + 1e-9)
    errors = CALIBRATION.errors()[taken, np.arange(len(taken))]
    assert found.expected_action_error == pytest.approx(float(errors.mean(dtype=np.float64)))
    # No worse than the cheaper of the rows that steps would take turns between.
    taken = exits_taken(CALIBRATION.deltas(), np.array(mixed.thresholds, np.float32))
    errors = CALIBRATION.errors()[taken, np.arange(len(taken))]
    assert found.expected_action_error <= errors.mean(dtype=np.float64) + 1e-9


@pytest.mark.parametrize("solver", SOLVERS)
@given(st.floats(0.02, 0.98), st.sampled_from(["llm", "step"]))
@settings(max_examples=15)
def test_an_average_is_met_and_what_is_expected_follows_from_the_samples(solver, place, scope):
    costs = LLM if scope == "llm" else STEP
    asked = between(costs, place)
    found = solved(average_gflops=asked, scope=scope, solver=solver)
    spent = found.expected_llm_gflops if scope == "llm" else found.expected_step_gflops
    assert spent <= asked * (1 + 1e-9)
    assert spent > asked - 0.05 * (costs[-1] - costs[0])
    assert found.binding == "average_gflops" and found.cost_name == f"{scope}_gflops"
    assert sum(found.exit_shares) == pytest.approx(1)
    assert found.expected_llm_gflops == pytest.approx(np.dot(found.exit_shares, LLM))
    assert found.expected_step_gflops == pytest.approx(np.dot(found.exit_shares, STEP))
    assert found.expected_ms == pytest.approx(np.dot(found.exit_shares, TABLE.exits_ms()))
    # The thresholds alone, without the mix, keep the budget too.
    assert found.thresholds[-1] == math.inf and len(found.thresholds) == 3
    taken = exits_taken(CALIBRATION.deltas(), np.array(found.thresholds, np.float32))
    assert costs[taken].mean() <= asked * (1 + 1e-9)


@given(st.floats(0, 1), st.sampled_from(["llm", "step"]))
@settings(max_examples=30)
def test_the_optimum_errs_least_at_every_cost(place, scope):
    asked = between(LLM if scope == "llm" else STEP, place)
    errors = [
        solved(average_gflops=asked, scope=scope, solver=solver).expected_action_error
        for solver in SOLVERS
    ]
    assert errors[0] <= min(errors[1:]) + 1e-12


@pytest.mark.parametrize("times", [(10.0, 4.0, 3.0), (10.0, 0.1, 30.0), (1.0, 50.0, 0.5)])
def test_milliseconds_are_budgets_too_and_the_optimum_is_one_in_them(times):
    table = cost_table(times)
    asked = between(table.exits_ms(), 0.5)
    found = [solved(table=table, average_ms=asked, solver=solver) for solver in SOLVERS]
    for solution in found:
        assert solution.expected_ms <= asked * (1 + 1e-9) and solution.cost_name == "ms"
        assert solution.binding == "average_ms"
    assert found[0].expected_action_error <= min(f.expected_action_error for f in found) + 1e-9


def test_an_average_at_or_above_full_depth_is_full_depth():
    for asked in (LLM[-1], 2 * LLM[-1], 1e9):
        found = solved(average_gflops=asked)
        assert found.exit_shares == pytest.approx((0, 0, 1)) and found.binding == "none"
        assert found.expected_action_error == 0


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_average_below_the_fixed_part_is_refused_with_what_is_reachable(solver):
    with pytest.raises(BudgetError) as error:
        solved(average_gflops=0.99 * LLM[0], solver=solver)
    for value in (LLM[0], LLM[-1]):
        assert f"{value:.6g}" in str(error.value)
    assert "average_gflops" in str(error.value) and "scope llm" in str(error.value)
    raised = float(str(error.value).split("at least ")[1].rstrip("."))
    assert solved(average_gflops=raised, solver=solver).binding == "average_gflops"
    assert solved(average_gflops=LLM[0], solver=solver).exit_shares[0] == pytest.approx(1)


def test_structural_limits_say_how_deep_and_which_of_them():
    mib = [weights_mib(CONFIG, layer, "float32") for layer in (2, 4, 6)]
    for budget, layer, binding in [
        ({"peak_gflops": LLM[1]}, 4, "peak_gflops"),
        ({"peak_gflops": STEP[1], "scope": "step"}, 4, "peak_gflops"),
        ({"peak_gflops": LLM[2]}, 6, "none"),
        ({"memory_mib": mib[1]}, 4, "memory_mib"),
        ({"memory_mib": mib[0], "peak_gflops": LLM[1]}, 2, "memory_mib"),
        # To the exit before in the median, from there to this one in 99 of 100 steps.
        ({"latency_ms": 15.9}, 2, "latency_ms"),
        ({"latency_ms": 16.0}, 4, "latency_ms"),
        ({"latency_ms": 16.0, "peak_gflops": LLM[0]}, 2, "peak_gflops"),
    ]:
        found = solved(**budget)
        assert (found.max_layer, found.binding) == (layer, binding), budget
        # No average: there is nothing to save.
        assert all(threshold <= NEVER for threshold in found.thresholds[:-1])
        assert found.exit_shares == (*[0] * (layer // 2 - 1), 1)
        assert found.expected_llm_gflops == pytest.approx(LLM[layer // 2 - 1])
        exact = CALIBRATION.errors()[layer // 2 - 1].mean()
        assert found.expected_action_error == pytest.approx(exact)


@pytest.mark.parametrize("budget, least", [
    ({"peak_gflops": 0.9 * LLM[0]}, LLM[0]),
    ({"memory_mib": 1e-3}, weights_mib(CONFIG, 2, "float32")),
    # 99 of 100 steps must end in time.
    ({"latency_ms": 14.9}, 15.0),
])
def test_a_limit_below_the_first_exit_is_refused_with_the_figure(budget, least):
    with pytest.raises(BudgetError, match=f"needs {least:.6g}"):
        solved(**budget)


def test_where_two_averages_are_given_the_tighter_one_binds():
    gflops, ms = between(LLM, 0.3), between(TABLE.exits_ms(), 0.9)
    found = solved(average_gflops=gflops, average_ms=ms)
    assert found.binding == "average_gflops" and found.expected_ms <= ms
    found = solved(average_gflops=between(LLM, 0.9), average_ms=between(TABLE.exits_ms(), 0.3))
    assert found.binding == "average_ms"
    assert found.expected_llm_gflops <= between(LLM, 0.9)


@given(st.floats(0.02, 1.2), st.floats(0.02, 1.2), st.sampled_from(SOLVERS))
@settings(max_examples=30)
def test_both_averages_hold_whatever_their_relation(gflops, ms, solver):
    table = cost_table((10.0, 0.1, 30.0))
    gflops, ms = between(LLM, gflops), between(table.exits_ms(), ms)
    found = solved(table=table, average_gflops=gflops, average_ms=ms, solver=solver)
    assert found.expected_llm_gflops <= gflops * (1 + 1e-9)
    assert found.expected_ms <= ms * (1 + 1e-9)


def test_a_lower_depth_has_a_frontier_of_its_own():
    found = solved(average_gflops=between(LLM[:2], 0.5), peak_gflops=LLM[1])
    assert found.max_layer == 4 and found.binding == "average_gflops"
    assert len(found.thresholds) == 2 and found.ladder.thresholds.shape[1] == 2
    assert found.reachable == pytest.approx((LLM[0], LLM[1]))
    deep = solved(average_gflops=LLM[1] * 1.01, peak_gflops=LLM[1])
    assert deep.binding == "peak_gflops" and deep.expected_llm_gflops <= LLM[1]
    assert solved(max_layer=2, average_gflops=LLM[0]).exit_shares == (1.0,)


def test_an_error_is_certified_by_the_episodes_not_by_the_samples():
    found = solved(max_action_error=0.1)
    ladder, row = found.ladder, int(found.knob)
    assert found.binding == "max_action_error" and found.knob == row
    assert p_values(ladder.losses, 0.1, 1 - 0.9)[row] <= 1 - 0.9
    assert found.expected_action_error < 0.1
    stricter = solved(max_action_error=0.1, confidence=0.999)
    assert stricter.expected_llm_gflops >= found.expected_llm_gflops
    tighter = solved(max_action_error=1e-6)
    assert tighter.exit_shares == pytest.approx((0, 0, 1))
    assert all(t <= NEVER for t in tighter.thresholds[:-1])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("calibrated", ["float32", "bfloat16", None])
def test_an_error_is_certified_for_the_type_of_weights_that_was_calibrated(dtype, calibrated):
    calibration = dataclasses.replace(CALIBRATION, dtype=calibrated)
    for limits in ({"max_action_error": 0.1}, {"average_gflops": between(LLM, 0.5)}):
        asked = (Budget(**limits), CONFIG, COST, None, calibration, None, dtype)
        if "max_action_error" not in limits or calibrated in (None, dtype):
            solve(*asked)
            continue
        with pytest.raises(BudgetError, match=f"type {calibrated}.*loaded as {dtype}.*--dtype"):
            solve(*asked)


def test_an_error_and_a_cost_that_cannot_both_be_kept_are_refused_with_what_is_needed():
    needed = solved(max_action_error=0.06).expected_llm_gflops
    assert solved(max_action_error=0.06, average_gflops=needed * 1.001).binding == (
        "max_action_error"
    )
    with pytest.raises(BudgetError, match=f"needs {needed:.6g} GFLOPs.*average_gflops"):
        solved(max_action_error=0.06, average_gflops=needed * 0.9)
    with pytest.raises(BudgetError, match="layers up to 2.*must be at least"):
        solved(max_action_error=1e-4, peak_gflops=LLM[0])


@pytest.mark.parametrize("budget, without, complaint", [
    ({"average_gflops": LLM[0] * 1.5}, "calibration", "deer calibrate"),
    ({"max_action_error": 0.1}, "calibration", "deer calibrate"),
    ({"average_ms": 12.0}, "table", "deer bench"),
    ({"latency_ms": 20.0}, "table", "deer bench"),
    ({"max_action_error": 0.1, "solver": "gamma"}, None, "solver optimal"),
])
def test_what_a_budget_lacks_is_said(budget, without, complaint):
    with pytest.raises(BudgetError, match=complaint):
        solved(**budget, **({without: None} if without else {}))


def test_a_model_without_calibration_can_still_run_to_full_depth():
    found = solved(calibration=None, average_gflops=LLM[-1])
    assert found.thresholds[:-1] == (NEVER, NEVER) and found.expected_action_error == 0
    assert solved(calibration=None) == found
    shallow = Cadence(2, 2)
    found = solve(Budget(), CONFIG, COST, cadence=shallow)
    assert found.expected_llm_gflops == pytest.approx((LLM[0] + LLM[2]) / 2)
    assert found.expected_action_error is None, "steps in between are not of full depth"


def test_a_calibration_of_other_exits_metric_or_depth_is_told():
    with pytest.raises(BudgetError, match=r"\[2, 4, 6\].*\[3, 6\]"):
        solved(config=tiny_config(exits=ExitConfig(interval=3)))
    budget = Budget(average_gflops=between(LLM, 0.5))
    with pytest.raises(BudgetError, match="metric l2.*--metric max"):
        solve(budget, CONFIG, COST, None, CALIBRATION, metric="max")
    families = solve(
        budget.replace(solver="exponential"), CONFIG, COST, None, CALIBRATION, metric="max"
    )
    assert families.metric == "max"
    bare = dataclasses.replace(CALIBRATION, frontiers={})
    with pytest.raises(BudgetError, match="no frontier"):
        solve(budget, CONFIG, COST, None, bare)
    no_losses = with_frontiers(make_calibration(), LLM)
    with pytest.raises(BudgetError, match="held-out"):
        solve(Budget(max_action_error=0.1), CONFIG, COST, None, no_losses)


def test_a_first_exit_after_layer_one_is_not_counted_as_reachable():
    config = tiny_config(exits=ExitConfig(interval=1))
    cost = CostModel(config, 6)
    llm = cost.exit_gflops("llm")
    calibration = with_frontiers(make_calibration(layers=(1, 2, 3, 4, 5, 6)), llm)
    with pytest.raises(BudgetError, match=f"{llm[1]:.6g} to {llm[-1]:.6g}"):
        solve(Budget(average_gflops=llm[0]), config, cost, None, calibration)
    for solver in SOLVERS:
        found = solve(
            Budget(average_gflops=between(llm[1:], 0.4), solver=solver), config, cost, None,
            calibration,
        )
        assert found.exit_shares[0] == 0


@pytest.mark.parametrize("solver", SOLVERS)
@given(st.floats(0.02, 0.98))
@settings(max_examples=15)
def test_where_a_gate_guesses_success_that_is_what_is_kept(solver, place):
    asked = between(LLM, place)
    found = [
        solved(OF_SUCCESS, config=GATED, average_gflops=asked, solver=name)
        for name in ("optimal", solver)
    ]
    assert found[0].expected_success_loss <= found[1].expected_success_loss + 1e-9
    solution = found[1]
    low = int(solution.knob)
    for losses, expected in (
        (GUESSES.clip(0, 1).T * [[1], [1], [0]], solution.expected_success_loss),
        (OF_SUCCESS.errors(), solution.expected_action_error),
    ):
        means = []
        for row in solution.ladder.thresholds[low : low + 2]:
            taken = exits_taken(OF_SUCCESS.deltas(), row)
            means.append(losses[taken, np.arange(400)].mean())
        mixed = np.interp(solution.knob - low, [0, 1][: len(means)], means)
        assert expected == pytest.approx(mixed, rel=1e-5)


def test_full_depth_loses_no_success_whatever_its_gate_says():
    found = solved(OF_SUCCESS, config=GATED, average_gflops=1e9)
    assert found.expected_success_loss == found.expected_action_error == 0
    less = solved(OF_SUCCESS, config=GATED, peak_gflops=LLM[1])
    assert less.expected_success_loss == pytest.approx(GUESSES[:, 1].clip(0, 1).mean())


def test_under_another_metric_the_action_is_what_is_kept():
    asked = between(LLM, 0.5)
    found = solve(
        Budget(average_gflops=asked, solver="gamma"), GATED, COST, TABLE, OF_SUCCESS, metric="l2"
    )
    plain = solve(
        Budget(average_gflops=asked, solver="gamma"), CONFIG, COST, TABLE,
        make_calibration(steps=400), metric="l2",
    )
    assert found.expected_success_loss is None
    assert found.expected_action_error == pytest.approx(plain.expected_action_error)
