"""What may be asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from deer_ros import Budget

LIMITS = (
    "average_gflops", "average_ms", "peak_gflops", "memory_mib", "latency_ms", "max_action_error",
)


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, 10**400, -1, 0, 0.0, True, "8", [8]]
)
def test_a_limit_is_a_finite_number_above_zero(name, value):
    with pytest.raises(ValueError, match=f"{name} is .*finite number above 0"):
        Budget(**{name: value})


@pytest.mark.parametrize("value", [8, 8.0, np.float32(8), np.int64(8)])
def test_whole_numbers_and_numpys_are_numbers_too(value):
    budget = Budget(average_gflops=value)
    assert budget.average_gflops == 8.0 and type(budget.average_gflops) is float
    assert budget == Budget(average_gflops=8.0)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.1, math.nan, True, "0.9", None])
def test_confidence_lies_between_zero_and_one(value):
    with pytest.raises(ValueError, match="confidence"):
        Budget(confidence=value)


@pytest.mark.parametrize("name, value", [
    ("scope", "whole"), ("scope", None), ("solver", "best"), ("tracking", 1), ("tracking", None),
])
def test_unknown_words_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        Budget(**{name: value})


def test_a_budget_lists_what_it_limits_and_checks_what_replaces_it():
    budget = Budget(average_gflops=8, latency_ms=50)
    assert budget.limits == {"average_gflops": 8.0, "latency_ms": 50.0}
    assert Budget().limits == {}
    assert budget.replace(average_gflops=None).limits == {"latency_ms": 50.0}
    with pytest.raises(ValueError, match="average_gflops"):
        budget.replace(average_gflops=-1)
