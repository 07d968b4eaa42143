"""The calibration that comes with the bundled model."""

from __future__ import annotations

import pytest

from deer_ros.budget.budget import Budget
from deer_ros.budget.cost import CostModel
from deer_ros.budget.solution import solve
from deer_ros.budget.solver import FAMILIES
from deer_ros.checkpoint.directory import CALIBRATION
from deer_ros.checkpoint.fingerprint import find_calibration
from deer_ros.model.config import DeerConfig
from deer_ros.resources import bundled_model


def test_it_is_of_the_bundled_weights_and_small():
    calibration = find_calibration(bundled_model())  # checks the fingerprint
    assert calibration is not None
    exits = DeerConfig.load(bundled_model() / "config.json").exit_layers
    assert sorted(calibration.frontiers) == list(range(1, len(exits) + 1))
    assert all(f.losses is not None for f in calibration.frontiers.values())
    assert (bundled_model() / CALIBRATION).stat().st_size < 2.5e6


@pytest.mark.parametrize("scope", ["llm", "step"])
def test_every_average_can_be_solved_and_the_optimum_loses_least(scope):
    calibration = find_calibration(bundled_model())
    config = DeerConfig.load(bundled_model() / "config.json")
    cost = CostModel(config, prompt_tokens=8)
    costs = cost.exit_gflops(scope)
    for place in (0.1, 0.3, 0.5, 0.7, 0.9):
        asked = costs[0] + place * (costs[-1] - costs[0])
        lost = {}
        for solver in ("optimal", *FAMILIES):
            budget = Budget(average_gflops=asked, scope=scope, solver=solver)
            found = solve(budget, config, cost, None, calibration)
            spent = getattr(found, f"expected_{scope}_gflops")
            assert spent <= asked * (1 + 1e-9)
            lost[solver] = found.expected_success_loss
        assert lost["optimal"] <= min(lost.values()) + 1e-9


def test_the_models_own_thresholds_are_those_of_the_budget_that_its_card_names():
    budget = Budget(average_gflops=0.0075)
    assert f"--average-gflops {budget.average_gflops} --keep" in (
        bundled_model() / "README.md").read_text(encoding="utf-8")
    config = DeerConfig.load(bundled_model() / "config.json")
    found = solve(
        budget, config, CostModel(config, prompt_tokens=13), None,
        find_calibration(bundled_model()), one_row=True,
    )  # fmt: skip
    assert found.thresholds[:-1] == pytest.approx(config.exits.thresholds[:-1])
    assert found.metric == config.exits.metric
