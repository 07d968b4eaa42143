from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from tiny_model import tiny_config

from deer_ros.budget.cadence import Cadence
from deer_ros.model.config import ExitConfig
from deer_ros.stepping.plan import Plan
from deer_ros.stepping.settings import (
    ALWAYS,
    NEVER,
    ROWS,
    Settings,
    default_thresholds,
    markdown,
)

CONFIG = tiny_config()


def refusal(name, value, config=None) -> str:
    with pytest.raises(ValueError) as error:
        Settings().replaced({name: value}, config)
    return str(error.value)


def test_whole_numbers_pass_for_fractions_inside_arrays_too():
    changed = Settings().replaced(
        {"control_rate": 8, "safety.workspace_min": [-1, -2.5, 0]}, None)
    assert changed.control_rate == 8.0 and type(changed.control_rate) is float
    assert changed.safety_workspace_min == (-1.0, -2.5, 0.0)


def test_a_mixed_list_that_ros2_param_sends_as_text_is_read():
    changed = Settings().replaced({"safety.workspace_min": "[-1, -2.5, 0]"}, None)
    assert changed.safety_workspace_min == (-1.0, -2.5, 0.0)


@pytest.mark.parametrize("name, value", [
    ("safety.workspace_min", "[1, 2"), ("safety.workspace_min", "[1, NaN, 2]"),
    ("safety.workspace_min", '["1", 2, 3]'), ("safety.workspace_min", f"[1, 2, -{10**400}]"),
    ("control_rate", 10**400), ("control_rate", math.nan), ("control_rate", math.inf),
    ("control_rate", -1.0), ("control_rate", 1e-300), ("control_rate", date(2020, 1, 1)),
    ("exit.thresholds", {1: 2}), ("exit.thresholds", date(2020, 1, 1)),
    ("control_rate", True), ("control_rate", "8"), ("control_rate", None), ("control_rate", [8.0]),
    ("exit.thresholds", [0.1, math.nan, 1.0]), ("exit.thresholds", [0.1, math.inf]),
    ("exit.thresholds", []), ("exit.thresholds", "0.1"), ("exit.thresholds", ["a", "b", "c"]),
    ("safety.workspace_max", [1.0, 2.0]), ("safety.workspace_max", [1.0, 2.0, 2000.0]),
    ("safety.input_timeout", 0.0), ("exit.policy", "sometimes"), ("exit.max_layer", 2.0),
    ("exit.max_layer", -1), ("exit.max_layer_between", -2), ("dry_run", 1),
    ("action.frame_id", ""), ("device", "tpu"),
    ("dtype", "int8"), ("model_sha256", "abc"), ("gripper.hysteresis", 0.6),
    ("image.max_skew", -0.1), ("safety.max_linear_velocity", -1.0),
])
def test_a_wrong_value_is_refused_with_its_name_and_what_is_allowed(name, value):
    sentence = refusal(name, value)
    assert sentence.startswith(name) and "allowed: " in sentence and sentence.endswith(".")


def test_a_refused_change_changes_nothing_and_an_accepted_one_counts_the_version():
    settings = Settings()
    with pytest.raises(ValueError):
        settings.replaced({"dry_run": True, "control_rate": -1}, None)
    assert settings == Settings()
    assert settings.replaced({"dry_run": True}, None).version == 2


def test_a_workspace_that_is_empty_is_refused_as_a_whole():
    assert "safety.workspace_min" in refusal("safety.workspace_max", [-1000, 0, 0])
    both = {"safety.workspace_min": [5, 5, 5], "safety.workspace_max": [6, 6, 6]}
    assert Settings().replaced(both, None).safety_workspace_max == (6.0, 6.0, 6.0)


def test_thresholds_must_be_as_many_as_the_models_exits():
    assert "needs 3, one per exit" in refusal("exit.thresholds", [0.1, 0.2], CONFIG)
    Settings().replaced({"exit.thresholds": [0.1, 0.2, 0.3]}, CONFIG)
    Settings().replaced({"exit.thresholds": [0.1, 0.2]}, None)


def test_a_depth_above_the_first_exit_is_refused_with_a_sentence():
    assert "max_layer is 1" in refusal("exit.max_layer", 1, CONFIG)
    assert "max_layer_between is 1" in refusal("exit.max_layer_between", 1, CONFIG)


def test_a_models_own_cadence_holds_for_thresholds_and_a_budget_chooses_unless_one_is_set():
    own = tiny_config(exits=ExitConfig(steps_per_decision=3, max_layer_between=5))

    def plan(**changes):
        changes = {"exit__thresholds": [0.1] * 3, **changes}
        names = {name.replace("__", "."): value for name, value in changes.items()}
        return Plan.of(Settings().replaced(names, own), own)

    assert plan().rule.cadence == Cadence(), "without a budget there is nothing to save"
    fixed = plan(exit__policy="fixed")
    assert (fixed.rule.cadence, fixed.cadence) == (Cadence(3, 4), None)
    assert plan(budget__average_ms=5.0).cadence is None
    for changes, cadence in (
        ({"exit__steps_per_decision": 1}, Cadence(1, 4)),
        ({"exit__steps_per_decision": 2, "exit__max_layer_between": 0}, Cadence(2, None)),
        ({"exit__max_layer_between": 2}, Cadence(3, 2)),
    ):
        for policy in ("fixed", "budget"):
            asked = plan(exit__policy=policy, budget__average_ms=5.0, **changes)
            assert asked.cadence == asked.rule.cadence == cadence
        assert not asked.costs_as(plan(budget__average_ms=5.0))


def test_the_models_thresholds_become_finite_numbers():
    assert default_thresholds(CONFIG) == (0.01, 0.01, ALWAYS)
    silent = tiny_config(exits=ExitConfig(interval=2))
    assert default_thresholds(silent) == (NEVER, NEVER, ALWAYS)


def test_zeros_are_filled_in_from_the_model():
    plan = Plan.of(Settings(), CONFIG)
    assert plan.control_rate_hz == 20.0 and plan.semantics.period_s == 0.05
    assert plan.max_duration_s == 3.0
    assert plan.semantics.linear_scale == 0.04
    assert plan.limits.linear_velocity == pytest.approx(0.8 * math.sqrt(3))
    assert not plan.needs_pose


def test_what_the_user_sets_goes_before_the_model():
    settings = Settings().replaced({
        "control_rate": 10, "episode.max_duration": 7, "action.linear_scale": 0.1,
        "safety.max_linear_velocity": 0.2, "safety.workspace_max": [1, 1, 1]}, CONFIG)
    plan = Plan.of(settings, CONFIG)
    assert (plan.control_rate_hz, plan.max_duration_s) == (10.0, 7.0)
    assert (plan.semantics.linear_scale, plan.limits.linear_velocity) == (0.1, 0.2)
    assert plan.semantics.period_s == 0.05, "a command lasts as the model says, whatever is asked"
    assert plan.needs_pose
    assert any("control_rate is 10 Hz" in sentence for sentence in plan.warnings())


def test_a_model_from_simulation_runs_dry_unless_it_is_allowed():
    allowed = Settings().replaced({"allow_simulation_model": True}, None)
    from_robot = CONFIG.replace(trained_in="robot")
    assert "allow_simulation_model" in Plan.of(Settings(), CONFIG).dry
    assert Plan.of(allowed, CONFIG).dry is None
    assert Plan.of(Settings(), from_robot).dry is None
    assert "dry_run" in Plan.of(replace(allowed, dry_run=True), CONFIG).dry


def test_the_policy_budget_without_budgets_runs_to_the_deepest_permitted_exit():
    plan = Plan.of(Settings(), CONFIG)
    assert plan.rule.layers(None, None) == (6,)
    shallow = Settings().replaced({"exit.max_layer": 5}, CONFIG)
    assert Plan.of(shallow, CONFIG).rule.layers(None, None) == (4,)


def test_the_policy_fixed_obeys_the_thresholds():
    fixed = Settings().replaced(
        {"exit.policy": "fixed", "exit.thresholds": [0.1, NEVER, 0.3]}, CONFIG)
    assert Plan.of(fixed, CONFIG).rule.thresholds == (0.1, NEVER, math.inf)


def test_the_policy_fixed_without_thresholds_obeys_the_models_own():
    fixed = Settings().replaced({"exit.policy": "fixed"}, CONFIG)
    assert Plan.of(fixed, CONFIG).rule.thresholds == (0.01, 0.01, math.inf)


def test_the_documentation_is_the_table():
    document = Path(__file__).parents[2] / "docs" / "parameters.md"
    assert document.read_text() == markdown()


def test_every_parameter_is_in_the_table_with_a_meaning():
    table = markdown()
    for name, row in ROWS.items():
        assert f"| `{name}` |" in table
        assert row.meaning.endswith(".") and row.allowed.words
    defaults = {name: row.default for name, row in ROWS.items() if name != "exit.thresholds"}
    assert Settings().replaced(defaults, CONFIG).version == 2, "every default is allowed"
