"""Budgets as parameters say them: one by one, in presets, and in the plan of a step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_config

from deer_ros.budget.budget import Budget
from deer_ros.stepping.budgets import (
    DEFAULT_PRESETS,
    LIMITS,
    NAMES,
    OPTIONS,
    in_parameters_words,
    read_presets,
)
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.record import Record
from deer_ros.stepping.settings import ROWS, Settings

CONFIG = tiny_config()
PRESETS = (
    "{slow: {average_gflops: 4, scope: step, tracking: false}, quick: {latency_ms: 20}, all: {}}"
)


def settings(**values) -> Settings:
    changes = {f"budget.{name}": value for name, value in values.items()}
    return Settings().replaced({"budget.presets": PRESETS} | changes, None)


def refusal(name: str, value) -> str:
    with pytest.raises(ValueError) as error:
        Settings().replaced({name: value}, None)
    return str(error.value)


def test_every_field_of_a_budget_is_a_parameter_with_its_default():
    for name in NAMES:
        row = ROWS[f"budget.{name}"]
        default = getattr(Budget(), name)
        assert row.default == (0.0 if default is None else default) and row.change == "live"


def test_without_a_limit_there_is_no_budget():
    assert Settings().budget() is None
    assert settings(scope="step", solver="gamma", tracking=False).budget() is None
    assert settings(preset="all").budget() is None
    assert Plan.of(Settings(), CONFIG).budget is None


@given(st.dictionaries(st.sampled_from(LIMITS), st.floats(1e-6, 1e6)))
def test_what_is_set_is_asked_for_and_zero_is_no_limit(limits):
    budget = settings(**limits, scope="step", solver="gamma", tracking=False).budget()
    if not limits:
        assert budget is None
        return
    assert budget.limits == limits
    assert (budget.scope, budget.solver, budget.tracking) == ("step", "gamma", False)
    assert Settings().replaced({f"budget.{n}": 0 for n in limits}, None).budget() is None


@given(own=st.floats(0, 10), named=st.floats(0.1, 10))
def test_of_a_limit_of_its_own_and_the_presets_the_tighter_holds(own, named):
    changes = {"budget.presets": f"{{p: {{average_ms: {named!r}}}}}", "budget.preset": "p",
               "budget.average_ms": own, "budget.peak_gflops": 3}
    budget = Settings().replaced(changes, None).budget()
    assert budget.average_ms == (min(own, named) if own else named)
    assert budget.peak_gflops == 3


def test_what_else_a_preset_names_goes_before_the_parameter():
    budget = settings(preset="slow", scope="llm", tracking=True, confidence=0.7).budget()
    assert (budget.scope, budget.tracking, budget.confidence) == ("step", False, 0.7)
    assert settings(preset="quick", scope="step").budget() == Budget(latency_ms=20, scope="step")


@pytest.mark.parametrize("name, value", [
    *((name, value) for name in LIMITS
      for value in (math.nan, math.inf, -1.0, True, "8", [8.0], None)),
    ("confidence", 0.0), ("confidence", 1), ("confidence", math.nan), ("scope", "layers"),
    ("solver", "best"), ("tracking", 1), ("tracking", "yes"), ("presets", 5), ("preset", None),
])
def test_what_is_no_budget_is_refused_with_its_name_and_what_is_allowed(name, value):
    sentence = refusal(f"budget.{name}", value)
    assert sentence.startswith(f"budget.{name} is ") and "allowed: " in sentence


@pytest.mark.parametrize("text, words", [
    ("{", "no YAML"), ("8", "a YAML mapping"), ("[a, b]", "a YAML mapping"),
    ("{a: 8}", "'a': 8"), ("{1: {}}", "1: {}"), ("{a: {speed: 8}}", "'speed'; budgets are average"),
    ("{a: {average_ms: -1}}", "'a' in budget.presets: average_ms is -1"),
    ("{a: {average_ms: .nan}}", "average_ms is nan"),
    ("{a: {average_ms: '8'}}", "average_ms is '8'"),
    ("{a: {scope: layers}}", "scope is 'layers'"), ("!!python/object:os.system {}", "no YAML"),
])
def test_wrong_presets_are_refused(text, words):
    assert words in refusal("budget.presets", text)


def test_a_preset_that_is_not_there_is_refused_with_those_that_are():
    assert "full, balanced, low_power" in refusal("budget.preset", "turbo")
    with pytest.raises(ValueError, match="budget.preset is 'slow'; budget.presets has full"):
        settings(preset="slow").replaced({"budget.presets": DEFAULT_PRESETS}, None)
    with pytest.raises(ValueError, match="budget.presets has none"):
        Settings().replaced({"budget.presets": "", "budget.preset": "full"}, None)


def test_a_limit_may_be_left_open_in_a_preset():
    assert read_presets("{a: {average_ms: null, peak_gflops: 3}}")
    changes = {"budget.presets": "{a: {average_ms: null, peak_gflops: 3}}", "budget.preset": "a"}
    assert Settings().replaced(changes, None).budget() == Budget(peak_gflops=3)


def test_with_fixed_thresholds_no_budget_is_kept_and_that_is_said():
    fixed = Settings().replaced(
        {"exit.policy": "fixed", "exit.thresholds": [0.1, 0.1, 1.0], "budget.peak_gflops": 3,
         "budget.memory_mib": 5}, CONFIG)
    plan = Plan.of(fixed, CONFIG)
    assert plan.budget is None
    (told,) = [sentence for sentence in plan.warnings() if "no budget is kept" in sentence]
    assert "budget.peak_gflops, budget.memory_mib" in told
    kept = Plan.of(fixed.replaced({"exit.policy": "budget"}, CONFIG), CONFIG)
    assert kept.budget == Budget(peak_gflops=3, memory_mib=5)
    assert not any("no budget is kept" in sentence for sentence in kept.warnings())
    assert not kept.costs_as(plan)
    assert kept.costs_as(Plan.of(kept.settings.replaced({"dry_run": True}, CONFIG), CONFIG))


def test_a_step_that_began_under_the_old_budget_is_not_in_the_new_ones_average():
    class Cost:
        llm_gflops = step_gflops = step_ms = 5.0

    class Step:
        exit_layer, cost = 6, Cost

    record = Record()
    record.count(Step, 1)
    record.restart_averages()
    record.count(Step, 2, is_of_before=True)
    assert record.since_change.steps == 0 and record.since_report.steps == 2
    record.count(Step, 3)
    assert record.since_change.mean("step_ms") == 5.0


def test_sentences_call_budgets_as_the_parameters_are_called():
    sentence = ("average_gflops is 1; raise average_gflops, or lower budget.peak_gflops or "
                "exit.latency_ms")
    assert in_parameters_words(sentence) == (
        "budget.average_gflops is 1; raise budget.average_gflops, or lower budget.peak_gflops or "
        "exit.latency_ms")
    assert in_parameters_words("steps_per_decision is 2") == "exit.steps_per_decision is 2"
    assert set(OPTIONS) | set(LIMITS) == set(NAMES)
