"""Budgets of a policy: thresholds, depth, tracking, deadlines, memory, and what is refused."""

from __future__ import annotations

import copy
import math
import time

import numpy as np
import pytest
import torch
from calibrated_model import noise, write_calibrated_model
from cost_tables import cost_table
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import INSTRUCTIONS, write_tiny_model

from deer_ros import Budget, DeerPolicy
from deer_ros.budget.budget import BudgetError
from deer_ros.budget.cost import CostModel
from deer_ros.budget.memory import weights_mib
from deer_ros.budget.tracking import GAIN
from deer_ros.model.config import ExitConfig

TEXT = INSTRUCTIONS[0]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    return write_calibrated_model(tmp_path_factory.mktemp("models") / "calibrated")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "plain")


@pytest.fixture
def policy(calibrated) -> DeerPolicy:
    policy = DeerPolicy.from_pretrained(calibrated)
    policy.cost_table = cost_table([10.0, 5.0, 5.0])
    policy.step(noise(0), TEXT)
    policy.reset()
    return policy


def costs(policy: DeerPolicy, scope: str = "llm", text: str = TEXT) -> np.ndarray:
    return CostModel(policy.config, len(policy.prompts.encode(text))).exit_gflops(scope)


def between(policy: DeerPolicy, share: float, scope: str = "llm") -> float:
    """A budget `share` of the way from the fixed part to full depth."""
    low, *_, high = costs(policy, scope)
    return float(low + share * (high - low))


def state_of(policy: DeerPolicy) -> np.ndarray:
    return torch.cat(list(policy.state)).numpy().copy()


class SteppedClock:
    """Passes only by what layers take: told for every layer, in seconds."""

    def __init__(self, policy: DeerPolicy, layer_ms: list[float]) -> None:
        self.now_s, self.layer_ms = 0.0, layer_ms
        policy.clock = lambda: self.now_s
        for number, layer in enumerate(policy.model.layers):
            layer.register_forward_hook(lambda *_, number=number: self._pass(number))

    def _pass(self, number: int) -> None:
        self.now_s += self.layer_ms[number] / 1e3


# Averages


@pytest.mark.parametrize("scope", ["llm", "step"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_average_is_kept_also_where_steps_are_unlike_the_calibrations(policy, scope, share):
    asked = between(policy, share, scope)
    solution = policy.set_budget(Budget(average_gflops=asked, scope=scope))
    assert solution.binding == "average_gflops" and policy.budget.average_gflops == asked
    spent = []
    for number in range(300):
        # From a third on there is one picture only, over and over.
        step = policy.step(noise(number if number < 100 else 7), TEXT)
        spent.append(getattr(step.cost, f"{scope}_gflops"))
    low, *_, high = costs(policy, scope)
    bound = (high - low) * (1 / GAIN + 1) / len(spent)
    assert abs(np.mean(spent) - asked) <= bound
    assert getattr(policy.pacing.spent, f"{scope}_gflops") == pytest.approx(np.mean(spent))


def test_without_tracking_thresholds_stay_between_two_rows_whatever_is_spent(policy):
    solution = policy.set_budget(Budget(average_gflops=between(policy, 0.4), tracking=False))
    rows = solution.ladder.thresholds
    low = int(solution.knob)
    seen = set()
    for _ in range(100):
        policy.step(noise(7), TEXT)
        seen.add(policy.thresholds[:-1])
    assert seen <= {tuple(map(float, row[:-1])) for row in rows[low:low + 2]}


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_an_average_is_kept_where_exits_are_kept_for_several_steps(policy, share):
    asked, held, steps = between(policy, share), 10, 400
    policy.set_budget(Budget(average_gflops=asked), steps_per_decision=held)
    for number in range(steps):
        policy.step(noise(number), TEXT)
    llm = costs(policy)
    bound = (llm[-1] - llm[0]) * (1 / GAIN + held) / steps
    assert abs(policy.pacing.spent.llm_gflops - asked) <= bound


@pytest.mark.parametrize("scope", ["llm", "step"])
@pytest.mark.parametrize(("share", "steps"), [(0.05, 2), (0.3, 2), (0.1, 5)])
def test_an_average_is_kept_where_steps_between_decisions_are_shallow(policy, scope, share, steps):
    asked = between(policy, share, scope)
    solution = policy.set_budget(
        Budget(average_gflops=asked, scope=scope), steps_per_decision=steps, max_layer_between=2)
    low, *_, high = costs(policy, scope)
    width = (high - low) / steps
    assert solution.reachable == pytest.approx((low, low + width))
    expected = np.dot(solution.exit_shares, costs(policy, scope))
    assert expected == pytest.approx(asked) and sum(solution.exit_shares) == pytest.approx(1)
    assert getattr(solution, f"expected_{scope}_gflops") == pytest.approx(expected)
    count, taken = 400, []
    for number in range(count):
        # From a quarter on there is one picture only, over and over.
        taken.append(policy.step(noise(number if number < 100 else 7), TEXT).exit_layer)
    assert {layer for number, layer in enumerate(taken) if number % steps} == {2}
    bound = width * (1 / GAIN + steps) / count
    assert abs(getattr(policy.pacing.spent, f"{scope}_gflops") - asked) <= bound


def test_more_than_full_depth_at_every_decision_costs_can_be_asked_for_and_is_not_spent(policy):
    *_, high = costs(policy)
    solution = policy.set_budget(
        Budget(average_gflops=high), steps_per_decision=2, max_layer_between=2)
    assert [policy.step(noise(n), TEXT).exit_layer for n in range(4)] == [6, 2, 6, 2]
    assert solution.expected_llm_gflops == pytest.approx((costs(policy)[0] + high) / 2)


def test_a_models_own_cadence_saves_where_an_average_is_asked_for_and_nowhere_else(tmp_path):
    exits = ExitConfig(steps_per_decision=2, max_layer_between=2)
    policy = DeerPolicy.from_pretrained(write_calibrated_model(tmp_path / "own", exits=exits))
    policy.cost_table = cost_table([10.0, 5.0, 5.0])
    policy.expect(TEXT)
    policy.prepare_budgets()
    for limits, every in (
        ({"peak_gflops": 1e9}, 1), ({"latency_ms": 100.0}, 1), ({"memory_mib": 1e3}, 1),
        ({"average_gflops": between(policy, 0.2)}, 2), ({"average_ms": 12.0}, 2),
        ({"average_gflops": between(policy, 0.2), "average_ms": 19.0}, 2),
        ({"max_action_error": 1.9}, 1),
        ({"max_action_error": 1.9, "average_gflops": 1.0}, 1),
    ):
        for solve in (policy.check_budget, policy.set_budget):
            solution = solve(Budget(**limits))
            assert solution.cadence.steps_per_decision == every, limits
        assert policy.rule.cadence == solution.cadence


def test_where_more_may_be_spent_than_a_models_own_cadence_does_every_step_decides(tmp_path):
    exits = ExitConfig(steps_per_decision=2, max_layer_between=2)
    policy = DeerPolicy.from_pretrained(write_calibrated_model(tmp_path / "own", exits=exits))
    policy.expect(TEXT)
    for share in (0.2, 0.49, 0.51, 0.8):
        asked = between(policy, share)
        solution = policy.set_budget(Budget(average_gflops=asked))
        assert solution.cadence.steps_per_decision == (2 if share < 0.5 else 1)
        assert solution.expected_llm_gflops == pytest.approx(asked)
        for number in range(200):
            policy.step(noise(number), TEXT)
        low, *_, high = costs(policy)
        bound = (high - low) * (1 / GAIN + 2) / 200
        assert abs(policy.pacing.spent.llm_gflops - asked) <= bound
    asked = Budget(average_gflops=between(policy, 0.8))
    with pytest.raises(BudgetError, match="decided on at every step"):
        policy.set_budget(asked.replace(max_action_error=1.9), steps_per_decision=2)
    kept = policy.set_budget(asked, steps_per_decision=2)
    assert kept.cadence.steps_per_decision == 2, "as was asked"


@pytest.mark.parametrize("held", [0, -1, 1.5, "2"])
def test_a_number_of_steps_per_decision_that_is_none_is_refused_before_any_step(policy, held):
    with pytest.raises(ValueError, match="steps_per_decision is .*whole number from 1"):
        policy.set_budget(Budget(average_gflops=between(policy, 0.5)), steps_per_decision=held)
    assert policy.budget is None
    policy.step(noise(0), TEXT)


def test_an_action_error_is_not_certified_for_exits_that_are_kept(policy):
    """Its risk was measured with the criterion asked at every step."""
    budget = Budget(max_action_error=1.9)
    policy.set_budget(budget)
    for ask in (policy.check_budget, policy.set_budget):
        with pytest.raises(BudgetError, match="decided on at every step, and steps_per_decision"):
            ask(budget, steps_per_decision=2)
    assert policy.budget == budget


def test_uncommitted_steps_move_no_threshold_and_count_as_nothing(policy):
    policy.set_budget(Budget(average_gflops=between(policy, 0.5)))
    before = policy.rule
    for number in range(20):
        step = policy.step(noise(number), TEXT, commit=False)
    assert policy.rule is before and policy.pacing.spent.steps == 0
    policy.commit(step)
    assert policy.pacing.spent.steps == 1


def test_a_changed_budget_begins_a_new_mean_and_leaves_the_state(policy):
    policy.set_budget(Budget(average_gflops=between(policy, 0.2)))
    for number in range(5):
        policy.step(noise(number), TEXT)
    before = state_of(policy)
    policy.set_budget(Budget(average_gflops=between(policy, 0.2)))
    assert policy.pacing.spent.steps == 5, "the same budget again is no change"
    policy.set_budget(Budget(average_gflops=between(policy, 0.8)))
    assert policy.pacing.spent.steps == 0 and math.isnan(policy.pacing.spent.llm_gflops)
    np.testing.assert_array_equal(state_of(policy), before)


def test_an_average_above_full_depth_is_met_by_full_depth(policy):
    policy.set_budget(Budget(average_gflops=10 * costs(policy)[-1]))
    for number in range(30):
        assert policy.step(noise(number), TEXT).exit_layer == 6


def test_a_budget_outlives_a_longer_instruction_and_its_mean_goes_on(policy):
    longer = INSTRUCTIONS[2]
    asked = float(costs(policy)[-1] * 0.9)
    low = costs(policy, text=longer)[0]
    assert low < asked
    policy.set_budget(Budget(average_gflops=asked))
    spent = [policy.step(noise(n), TEXT if n % 40 < 20 else longer).cost.llm_gflops
             for n in range(400)]
    widest = costs(policy, text=longer)[-1] - costs(policy)[0]
    assert abs(np.mean(spent) - asked) <= widest * (1 / GAIN + 1) / len(spent)
    assert policy.pacing.spent.steps == 400


def test_an_instruction_that_a_budget_cannot_be_kept_with_takes_the_first_exit_and_says_so(policy):
    asked = float(costs(policy)[0] * 1.01)
    assert asked < costs(policy, text=INSTRUCTIONS[2])[0]
    policy.set_budget(Budget(average_gflops=asked))
    assert policy.pacing.unmet is None
    assert policy.step(noise(0), INSTRUCTIONS[2]).exit_layer == 2
    assert "average_gflops is" in policy.pacing.unmet
    policy.step(noise(0), TEXT)
    assert policy.pacing.unmet is None


def test_of_two_averages_the_tighter_holds(policy):
    loose, tight = between(policy, 0.9), 11.0  # ms, of 10 to 20
    solution = policy.set_budget(Budget(average_gflops=loose, average_ms=tight))
    assert solution.binding == "average_ms"
    # Without a clock that tells otherwise, what is real time counts as nothing: all is permitted.
    clock = SteppedClock(policy, [5.0, 5.0, 2.5, 2.5, 2.5, 2.5])
    taken = [policy.step(noise(n), TEXT).cost.step_ms for n in range(300)]
    assert abs(np.mean(taken) - tight) <= 10 * (1 / GAIN + 1) / len(taken)
    assert clock.now_s > 0 and policy.pacing.spent.llm_gflops < loose


# Limits


@pytest.mark.parametrize(("exit_number", "layer"), [(0, 2), (1, 4), (2, 6)])
@pytest.mark.parametrize("scope", ["llm", "step"])
def test_no_step_exceeds_a_peak_and_without_more_it_goes_as_deep_as_that(
    plain, exit_number, layer, scope
):
    policy = DeerPolicy.from_pretrained(plain)
    policy.step(noise(0), TEXT)
    peak = float(costs(policy, scope)[exit_number]) * 1.001
    policy.set_budget(Budget(peak_gflops=peak, scope=scope))
    assert policy.max_layer == layer
    for number in range(5):
        step = policy.step(noise(number), TEXT)
        assert step.exit_layer == layer and step.stopped_by == "deepest"
        assert getattr(step.cost, f"{scope}_gflops") <= peak


def test_what_limits_alone_let_expect_is_what_then_runs(tmp_path):
    """Not what the model's own thresholds would do, which leave early."""
    exits = ExitConfig(interval=2, thresholds=(1e8, 1e8, 1e8))
    policy = DeerPolicy.from_pretrained(write_calibrated_model(tmp_path / "m", exits=exits))
    policy.cost_table = cost_table([10.0, 5.0, 5.0])
    policy.expect(TEXT)
    policy.prepare_budgets()
    for limits in ({}, {"peak_gflops": 1e9}, {"latency_ms": 1e6}, {"memory_mib": 1e3}):
        solution = policy.set_budget(Budget(**limits))
        for number in range(3):
            policy.step(noise(number), TEXT)
        assert solution.expected_llm_gflops == pytest.approx(policy.pacing.spent.llm_gflops)
        assert solution.exit_shares == (0, 0, 1) and solution.expected_action_error == 0


@pytest.mark.parametrize("limit", ["peak_gflops", "average_gflops"])
def test_a_whole_step_that_asks_no_exit_before_its_own_costs_no_more_than_that(plain, limit):
    policy = DeerPolicy.from_pretrained(plain)
    policy.expect(TEXT)
    whole = policy.step(noise(0), TEXT, exit_layer=6, commit=False).cost.step_gflops
    assert whole < costs(policy, "step")[-1]
    solution = policy.set_budget(Budget(**{limit: whole * (1 + 1e-9)}, scope="step"))
    spent = policy.step(noise(1), TEXT).cost.step_gflops
    assert solution.max_layer == 6
    assert spent == pytest.approx(whole) == solution.expected_step_gflops


@pytest.mark.parametrize("room", [0.0, 0.5, 1.0])
def test_under_a_deadline_every_exit_on_the_way_answers_and_counts_for_a_peak(plain, room):
    policy = DeerPolicy.from_pretrained(plain)
    policy.cost_table = cost_table([10.0, 5.0, 5.0])
    policy.expect(TEXT)
    alone = policy.step(noise(0), TEXT, exit_layer=6, commit=False).cost.step_gflops
    peak = alone + room * (costs(policy, "step")[-1] - alone)
    solution = policy.set_budget(Budget(peak_gflops=peak, scope="step", latency_ms=1e6))
    assert solution.max_layer == (6 if room == 1 else 4)
    for number in range(5):
        assert policy.step(noise(number), TEXT).cost.step_gflops <= peak


def test_peak_and_average_hold_together(policy):
    policy.set_budget(Budget(average_gflops=between(policy, 0.3),
                             peak_gflops=float(costs(policy)[1]) * 1.001))
    spent = [policy.step(noise(n), TEXT) for n in range(200)]
    assert max(step.exit_layer for step in spent) == 4
    mean = np.mean([step.cost.llm_gflops for step in spent])
    assert abs(mean - between(policy, 0.3)) <= between(policy, 1) * (1 / GAIN + 1) / 200


@pytest.mark.parametrize(("held", "room"), [(2, 0.0), (4, 0.0), (4, 0.01), (6, 0.0)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_decides_how_many_layers_are_held(plain, dtype, held, room):
    policy = DeerPolicy.from_pretrained(plain, dtype=dtype)
    limit = weights_mib(policy.config, held, dtype) + room
    policy.set_budget(Budget(memory_mib=limit))
    bytes_held = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    assert len(policy.model.layers) == policy.max_layer == held
    assert bytes_held / 2**20 <= limit
    fresh = DeerPolicy.from_pretrained(plain, dtype=dtype, budget=Budget(memory_mib=limit))
    assert len(fresh.model.layers) == held
    ours, theirs = (p.step(noise(0), TEXT) for p in (policy, fresh))
    np.testing.assert_array_equal(ours.action, theirs.action)
    policy.set_budget(Budget())
    assert len(policy.model.layers) == 6, "without the limit all layers are wanted again"


def test_a_policy_loaded_in_little_memory_never_reads_the_layers_beyond(plain, monkeypatch):
    from deer_ros.checkpoint.source import WeightSource

    read, filled = [], WeightSource._fill

    def note(self, part, prefix, *arguments, **keywords):
        read.append(prefix)
        return filled(self, part, prefix, *arguments, **keywords)

    monkeypatch.setattr(WeightSource, "_fill", note)
    config = DeerPolicy.from_pretrained(plain, max_layer=2).config
    read.clear()
    limit = weights_mib(config, 4, "float32")
    policy = DeerPolicy.from_pretrained(plain, budget=Budget(memory_mib=limit))
    assert "layers.3." in read and "layers.4." not in read
    assert policy.load_layers(None).after == 4
    policy.adopt(policy.load_layers(None))
    policy.set_budget(Budget(memory_mib=2 * limit))
    assert len(policy.model.layers) == 6


def test_layers_may_be_left_to_the_caller(plain):
    policy = DeerPolicy.from_pretrained(plain)
    limit = weights_mib(policy.config, 4, "float32")
    policy.take_budget(Budget(memory_mib=limit))
    assert len(policy.model.layers) == 6 and policy.max_layer == 4
    policy.adopt(policy.load_layers(policy.depth_for(policy.budget)))
    assert len(policy.model.layers) == 4
    policy.take_budget(Budget())
    assert policy.max_layer == 4
    policy.adopt(policy.load_layers(None))
    assert policy.max_layer == 6, "the budget in force is solved for the new depth"


def test_a_budget_holds_on_at_another_depth(policy):
    policy.set_budget(Budget(average_gflops=between(policy, 0.2)))
    policy.adopt(policy.load_layers(4))
    spent = [policy.step(noise(n), TEXT) for n in range(200)]
    assert max(step.exit_layer for step in spent) == 4
    mean = np.mean([step.cost.llm_gflops for step in spent])
    assert abs(mean - between(policy, 0.2)) <= between(policy, 1) * (1 / GAIN + 1) / 200


# Deadlines


@given(
    latency=st.floats(16, 60),
    layers=st.lists(st.lists(st.floats(0, 30), min_size=6, max_size=6), min_size=1, max_size=6),
)
@settings(max_examples=40)
def test_a_step_overshoots_by_no_more_than_the_segment_that_ran(timed_policy, latency, layers):
    policy, clock = timed_policy
    policy.set_budget(Budget(latency_ms=latency))
    for layer_ms in layers:
        clock.layer_ms = layer_ms
        started = clock.now_s
        step = policy.step(noise(0), TEXT)
        taken = 1e3 * (clock.now_s - started)
        last = sum(layer_ms[step.exit_layer - 2 : step.exit_layer])
        assert taken == pytest.approx(sum(layer_ms[: step.exit_layer]))
        assert taken <= latency + last + 1e-6
        assert step.stopped_by == ("deepest" if step.exit_layer == 6 else "deadline")


@pytest.fixture(scope="module")
def timed_policy(plain):
    policy = DeerPolicy.from_pretrained(plain)
    policy.cost_table = cost_table([10.0, 5.0, 5.0])
    return policy, SteppedClock(policy, [0.0] * 6)


@pytest.mark.parametrize(
    ("latency", "layer", "why"),
    [(15.0, 2, "deadline"), (17.4, 2, "deadline"), (17.6, 4, "deadline"), (22.4, 4, "deadline"),
     (23.0, 6, "deepest"), (1e6, 6, "deepest")],
)  # fmt: skip
def test_a_step_goes_to_the_deepest_exit_that_fits(plain, latency, layer, why):
    """Layers take 5 ms each way to the first exit and 2.5 ms after; p99 of a segment is 7.5 ms."""
    policy = DeerPolicy.from_pretrained(plain)
    policy.cost_table = cost_table([10.0, 5.0, 5.0])
    SteppedClock(policy, [5.0, 5.0, 2.5, 2.5, 2.5, 2.5])
    policy.set_budget(Budget(latency_ms=latency))
    step = policy.step(noise(0), TEXT)
    assert (step.exit_layer, step.stopped_by) == (layer, why)
    told = policy.explain(noise(0), TEXT)
    assert told.layers == (2, 4, 6)


def test_the_answer_at_a_deadline_is_that_of_the_exit_in_hand(plain):
    late, whole = (DeerPolicy.from_pretrained(plain) for _ in range(2))
    late.cost_table = cost_table([10.0, 5.0, 5.0])
    clock = SteppedClock(late, [5.0, 5.0, 2.5, 2.5, 2.5, 2.5])
    late.set_budget(Budget(latency_ms=18.0))
    for number in range(3):
        ours = late.step(noise(number), TEXT)
        theirs = whole.step(noise(number), TEXT, exit_layer=4)
        np.testing.assert_allclose(ours.action, theirs.action, atol=1e-6)
        assert ours.cost.llm_gflops == theirs.cost.llm_gflops
    np.testing.assert_allclose(state_of(late), state_of(whole), atol=1e-6)
    assert clock.now_s == pytest.approx(3 * 0.015)


def test_a_deadline_cuts_a_fixed_exit_and_a_kept_one_too(plain):
    policy = DeerPolicy.from_pretrained(plain)
    policy.cost_table = cost_table([10.0, 5.0, 5.0])
    clock = SteppedClock(policy, [5.0, 5.0, 2.5, 2.5, 2.5, 2.5])
    policy.set_budget(Budget(latency_ms=23.0), steps_per_decision=5)
    step = policy.step(noise(0), TEXT, exit_layer=4)
    assert (step.exit_layer, step.stopped_by) == (4, "fixed")
    policy.reset()
    assert policy.step(noise(0), TEXT).exit_layer == 6
    clock.layer_ms = [7.0, 7.0, 2.5, 2.5, 2.5, 2.5]
    step = policy.step(noise(0), TEXT)
    assert (step.exit_layer, step.stopped_by) == (4, "deadline")
    assert np.isnan(step.deltas).all()


def test_a_deadline_counts_from_when_the_step_was_started(plain):
    policy = DeerPolicy.from_pretrained(plain)
    policy.cost_table = cost_table([10.0, 5.0, 5.0])
    clock = SteppedClock(policy, [5.0, 5.0, 2.5, 2.5, 2.5, 2.5])
    policy.set_budget(Budget(latency_ms=23.0))
    clock.now_s = 10.0
    assert policy.step(noise(0), TEXT).exit_layer == 6
    started = clock.now_s
    clock.now_s += 0.004
    assert policy.step(noise(0), TEXT, started_s=started).exit_layer == 4


def test_on_the_real_clock_a_slow_layer_is_not_begun(plain):
    policy = DeerPolicy.from_pretrained(plain)
    for layer in policy.model.layers[4:]:
        layer.register_forward_hook(lambda *_: time.sleep(0.2))
    policy.cost_table = policy.measure(steps=5)
    fixed, full = policy.cost_table.exits_ms("p99")[[1, 2]]
    assert full > fixed + 300
    policy.set_budget(Budget(latency_ms=fixed + 300))
    steps = [policy.step(noise(n), TEXT) for n in range(5)]
    assert {step.exit_layer for step in steps} <= {2, 4}
    assert {step.stopped_by for step in steps} == {"deadline"}


def test_a_deadline_that_overrides_a_certificate_says_so(policy):
    clock = SteppedClock(policy, [5.0, 5.0, 2.5, 2.5, 2.5, 2.5])
    policy.set_budget(Budget(max_action_error=1e-6, latency_ms=23.0))
    assert policy.step(noise(0), TEXT).exit_layer == 6 and policy.pacing.unmet is None
    clock.layer_ms = [7.0, 7.0, 2.5, 2.5, 2.5, 2.5]
    assert policy.step(noise(0), TEXT).stopped_by == "deadline"
    assert "latency_ms 23 ended 1 of 2 steps" in policy.pacing.unmet


def test_layers_that_a_budget_reads_are_measured_before_a_deadline_goes_by_them(plain):
    """Not taken to be as slow as the few that were there before."""
    config = DeerPolicy.from_pretrained(plain, max_layer=2).config
    for layers, measured in ((6, (2, 4, 6)), (2, (2,))):
        limit = weights_mib(config, layers, "float32")
        budget = Budget(memory_mib=limit, latency_ms=1e6)
        policy = DeerPolicy.from_pretrained(plain, budget=budget)
        assert policy.cost_table.exit_layers == measured
    policy.set_budget(Budget(latency_ms=1e6))
    assert policy.cost_table.exit_layers == (2, 4, 6)
    assert policy.pacing.deadline.times.table == policy.cost_table


def test_a_deadline_that_is_taken_before_anything_was_measured_is_told_and_breaks_no_step(plain):
    policy = DeerPolicy.from_pretrained(plain)
    policy.take_budget(Budget(latency_ms=40.0))
    assert policy.step(noise(0), TEXT).exit_layer == 2 and "deer bench" in policy.pacing.unmet


# What is refused


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        ({"average_gflops": 1e-9}, "average_gflops is 1e-09; a step of this model costs"),
        ({"peak_gflops": 1e-9}, "Raise peak_gflops to at least"),
        ({"memory_mib": 1e-4}, "Raise memory_mib to at least"),
        ({"latency_ms": 14.9}, "latency_ms is 14.9; this model needs 15 ms"),
        ({"average_ms": 9.9}, "average_ms is 9.9; a step of this model costs 10 to 20 ms"),
    ],
)
def test_a_budget_below_the_fixed_part_is_refused_with_the_figure_and_the_old_one_stays(
    policy, limits, complaint
):
    policy.set_budget(Budget(average_gflops=between(policy, 0.5)))
    policy.step(noise(1), TEXT)
    pacing, rule, before = policy.pacing, policy.rule, state_of(policy)
    with pytest.raises(BudgetError, match=complaint):
        policy.set_budget(Budget(**limits))
    assert policy.pacing is pacing and policy.rule is rule and len(policy.model.layers) == 6
    np.testing.assert_array_equal(state_of(policy), before)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 0.0, True, "8"])
@pytest.mark.parametrize("name", ["average_gflops", "latency_ms", "memory_mib"])
def test_what_is_no_number_is_no_budget(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*; it must be a finite number above 0"):
        Budget(**{name: value})


@pytest.mark.parametrize("limits", [{"average_gflops": 1e-4}, {"max_action_error": 0.1}])
def test_without_a_calibration_averages_and_errors_are_refused(plain, limits):
    policy = DeerPolicy.from_pretrained(plain)
    policy.step(noise(0), TEXT)
    with pytest.raises(BudgetError, match="deer calibrate"):
        policy.set_budget(Budget(**limits))
    assert policy.budget is None


def test_a_calibration_of_other_weights_is_refused(calibrated, tmp_path):
    import shutil

    other = write_tiny_model(tmp_path / "other", seed=1)
    shutil.copy(calibrated / "calibration.safetensors", other)
    policy = DeerPolicy.from_pretrained(other)
    with pytest.raises(ValueError, match="calibration of other weights"):
        policy.set_budget(Budget(average_gflops=1e-4))
    policy.set_budget(Budget(peak_gflops=1.0))


def test_a_calibration_of_newer_weights_is_refused_by_a_policy_that_holds_the_older(
    calibrated, tmp_path
):
    """The model was retrained and calibrated anew in its directory while the policy runs."""
    import shutil

    folder = shutil.copytree(calibrated, tmp_path / "m")
    early, late = (DeerPolicy.from_pretrained(folder) for _ in range(2))
    for policy in (early, late):
        policy.expect(TEXT)
    asked = Budget(average_gflops=between(early, 0.5))
    early.set_budget(asked)
    write_calibrated_model(folder, seed=1)
    with pytest.raises(ValueError, match="has changed since the policy was loaded"):
        late.set_budget(asked)
    assert late.budget is None and late.calibration is None
    early.set_budget(asked.replace(average_gflops=between(early, 0.2)))
    fresh = DeerPolicy.from_pretrained(folder)
    fresh.expect(TEXT)
    fresh.set_budget(asked)


def test_layers_that_cannot_be_read_leave_the_old_budget(plain, tmp_path):
    import shutil

    folder = shutil.copytree(plain, tmp_path / "m")
    config = DeerPolicy.from_pretrained(folder).config
    tight = Budget(memory_mib=weights_mib(config, 2, "float32"))
    policy = DeerPolicy.from_pretrained(folder, budget=tight)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="is not there any more"):
        policy.set_budget(Budget())
    assert policy.budget is tight and len(policy.model.layers) == 2
    policy.step(noise(0), TEXT)


def test_a_budget_can_be_checked_before_it_is_taken(policy):
    policy.prepare_budgets()
    policy.take_budget(Budget(average_gflops=between(policy, 0.5)))
    pacing, held = policy.pacing, policy.model.max_layer
    for limits in ({"average_gflops": 1e-9}, {"memory_mib": 1e-3}, {"peak_gflops": 1e-9}):
        with pytest.raises(BudgetError):
            policy.check_budget(Budget(**limits))
    solution = policy.check_budget(Budget(average_gflops=between(policy, 0.2)), max_layer=4)
    assert solution.max_layer == 4
    assert policy.pacing is pacing and policy.model.max_layer == held


def test_a_budget_is_checked_for_the_layers_that_are_wanted_not_for_those_there(policy):
    asked = Budget(average_gflops=between(policy, 0.9), tracking=False)
    policy.prepare_budgets()
    solution = policy.check_budget(asked)
    policy.adopt(policy.load_layers(2))
    assert policy.check_budget(asked).thresholds == solution.thresholds
    assert policy.check_budget(asked, max_layer=2).max_layer == 2


def test_a_budget_that_a_longer_prompt_breaks_may_be_taken_and_says_so(policy):
    policy.prepare_budgets()
    policy.take_budget(Budget(average_gflops=1e-9))
    assert "average_gflops is 1e-09" in policy.pacing.unmet
    step = policy.step(noise(0), TEXT)
    assert step.exit_layer == 2, "as little as can be is spent"
    policy.take_budget(Budget(average_gflops=between(policy, 0.5)))
    assert policy.pacing.unmet is None


def test_more_memory_reads_layers_whatever_the_budget_in_force_says(plain):
    policy = DeerPolicy.from_pretrained(plain)
    limit = weights_mib(policy.config, 2, "float32")
    policy.set_budget(Budget(memory_mib=limit))
    assert policy.load_layers(None).after == 2
    assert policy.load_layers(None, math.inf).after == 6
    assert policy.load_layers(None, weights_mib(policy.config, 4, "float32")).after == 4


# Together with the rest


def test_thresholds_end_a_budget_and_a_budget_ends_thresholds(policy):
    policy.set_budget(Budget(peak_gflops=float(costs(policy)[0]) * 1.01))
    assert policy.step(noise(0), TEXT).exit_layer == 2
    policy.set_thresholds([-1.0, -1.0, 1.0])
    assert policy.budget is None and policy.solution is None and policy.max_layer == 6
    step = policy.step(noise(0), TEXT)
    assert (step.exit_layer, step.stopped_by) == (6, "deepest")
    policy.set_thresholds([1e8, 0.0, 0.0])
    assert policy.step(noise(0), TEXT).stopped_by == "criterion"
    assert policy.step(noise(0), TEXT, exit_layer=2).stopped_by == "fixed"


def test_the_first_exit_after_layer_one_is_left_to_fixed_exits_and_deadlines(tmp_path):
    folder = write_calibrated_model(tmp_path / "m", exits=ExitConfig(interval=1))
    policy = DeerPolicy.from_pretrained(folder)
    policy.step(noise(0), TEXT)
    low, high = costs(policy)[[1, -1]]
    policy.set_budget(Budget(average_gflops=float(low * 1.05)))
    taken = [policy.step(noise(n), TEXT) for n in range(200)]
    assert min(step.exit_layer for step in taken) == 2
    mean = np.mean([step.cost.llm_gflops for step in taken])
    assert abs(mean - low * 1.05) <= (high - low) * (1 / GAIN + 1) / 200
    with pytest.raises(BudgetError):
        policy.set_budget(Budget(average_gflops=float(low * 0.9)))


def test_a_copied_policy_has_a_budget_of_its_own(policy):
    policy.set_budget(Budget(average_gflops=between(policy, 0.5)))
    other = copy.copy(policy)
    other.set_thresholds([1e8, 1e8, 1e8])
    assert policy.budget is not None and other.budget is None


def test_a_budget_is_solved_in_milliseconds_once_it_is_prepared(policy):
    policy.prepare_budgets()
    for solver in ("optimal", "exponential", "gaussian", "gamma"):
        taken_s = []
        for share in np.linspace(0.1, 0.9, 5):
            budget = Budget(average_gflops=between(policy, share), solver=solver)
            started_s = time.perf_counter()
            policy.set_budget(budget)
            taken_s.append(time.perf_counter() - started_s)
        assert min(taken_s) < 0.02
