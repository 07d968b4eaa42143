"""A budget in force: by which rule every step goes, and what is said of what steps spent."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from cost_tables import cost_table
from synthetic_samples import make_calibration, with_frontiers
from tiny_model import tiny_config

from deer_ros.budget.budget import Budget
from deer_ros.budget.cost import CostModel
from deer_ros.budget.tracking import GAIN
from deer_ros.decision import StepCost
from deer_ros.pacing import Facts, Pacing

CONFIG = tiny_config()  # exits after layers 2, 4 and 6
TOKENS = 6
LLM = CostModel(CONFIG, TOKENS).exit_gflops("llm")
CALIBRATION = with_frontiers(make_calibration(), LLM, losses=300)


FACTS = Facts(
    CONFIG, "float32", 6, tokens=TOKENS, table=cost_table([10.0, 5.0, 5.0]),
    calibration=CALIBRATION,
)


def paced(**limits) -> Pacing:
    return Pacing(Budget(**limits), FACTS)


def cost(llm_gflops: float, ms: float = 0.0) -> StepCost:
    return StepCost(0.0, llm_gflops, 0.0, 0.0, 0.0, ms, 0.0)


# Action errors


@pytest.mark.parametrize("tracking", [True, False])
@pytest.mark.parametrize("room", [1.0, 1.2])
@pytest.mark.parametrize("spent", LLM)
def test_where_an_error_is_certified_every_step_goes_by_the_certified_row(tracking, room, spent):
    certified = paced(max_action_error=0.06).solution
    pacing = paced(
        max_action_error=0.06, average_gflops=room * certified.expected_llm_gflops,
        tracking=tracking,
    )
    assert pacing.solution.binding == "max_action_error"
    for _ in range(200):
        assert pacing.rule.thresholds == certified.thresholds
        pacing.learn(cost(spent))


@pytest.mark.parametrize("unit", ["average_gflops", "average_ms"])
def test_an_average_that_a_certified_row_breaks_is_told_once_tracking_would_have_kept_it(unit):
    needed = paced(max_action_error=0.06, **{unit: 1e3}).solution
    in_ms = unit == "average_ms"
    asked = needed.expected_ms if in_ms else needed.expected_llm_gflops
    low, *_, high = cost_table([10.0, 5.0, 5.0]).exits_ms() if in_ms else LLM
    pacing = paced(max_action_error=0.06, **{unit: asked})
    assert pacing.unmet is None
    steps = (high - low) * (1 / GAIN + 1) / (high - asked)
    for number in range(1, 3 * int(steps)):
        pacing.learn(cost(high, high))
        assert bool(pacing.unmet) == (number > steps)
        assert pacing.rule.thresholds == needed.thresholds
    assert "max_action_error 0.06 takes" in pacing.unmet and f"{unit} is" in pacing.unmet
    for _ in range(10_000):
        pacing.learn(cost(low, low))
    assert pacing.unmet is None


@pytest.mark.parametrize("latency", [16.0, 20.0, 1e3])
def test_an_error_is_certified_for_the_depth_that_a_deadline_lets_a_typical_step_reach(latency):
    pacing = paced(max_action_error=1.0, latency_ms=latency)
    solution = pacing.solution
    assert solution.max_layer == {16.0: 2, 20.0: 4, 1e3: 6}[latency]
    assert pacing.rule.exits[-1] == solution.max_layer, "though there may be time for more"
    assert pacing.rule.thresholds[: len(solution.thresholds)] == solution.thresholds
    assert pacing.deadline.latency_ms == latency


def test_steps_that_a_deadline_cuts_short_of_a_certificate_are_told_with_their_number():
    for limits, told in (
        ({"max_action_error": 1.0, "latency_ms": 1e3}, "latency_ms 1000 ended 2 of 3 steps"),
        ({"latency_ms": 1e3}, None),
    ):
        pacing = paced(**limits)
        pacing.learn(cost(LLM[0]))
        assert pacing.unmet is None
        for _ in range(2):
            pacing.learn(cost(LLM[0]), cut=True)
        assert (told in pacing.unmet) if told else pacing.unmet is None


def test_without_an_error_what_is_spent_moves_thresholds_and_is_no_complaint():
    pacing = paced(average_gflops=float(np.mean(LLM)))
    before = pacing.rule.thresholds
    for _ in range(200):
        pacing.learn(cost(LLM[-1]))
    assert pacing.rule.thresholds != before and pacing.unmet is None


# Deadlines


def test_a_deadline_in_force_goes_by_what_was_measured_anew():
    pacing = paced(latency_ms=40.0)
    before = pacing.deadline.times
    before.learn([10.0, 9.0, 5.0])
    pacing.adapt(table=cost_table([10.0, 20.0, 5.0]))
    assert pacing.deadline.times.predicted_ms(1) == 30.0
    other = Pacing(Budget(latency_ms=50.0), pacing.facts, before)
    assert other.deadline.times.predicted_ms(1) == 30.0, "nor does another budget go by the old"


def test_what_a_deadline_learnt_outlives_another_prompt_and_another_budget():
    pacing = paced(latency_ms=40.0)
    times = pacing.deadline.times
    for _ in range(2):
        times.learn([10.0, 9.0, 5.0])
    pacing.adapt(tokens=TOKENS + 1, table=cost_table([10.0, 5.0, 5.0]))
    assert pacing.deadline.times is times and times.predicted_ms(1) == 9.0
    other = Pacing(Budget(latency_ms=50.0), pacing.facts, times)
    assert other.deadline.times is times


def test_without_measured_times_a_deadline_is_unmet_and_ends_no_step():
    pacing = Pacing(Budget(latency_ms=40.0), dataclasses.replace(FACTS, table=None))
    assert "deer bench" in pacing.unmet and pacing.deadline is None
    pacing.adapt(table=FACTS.table)
    assert pacing.unmet is None and pacing.deadline.latency_ms == 40.0
