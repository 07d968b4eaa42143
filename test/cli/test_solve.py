"""`deer solve`: thresholds for a budget, and one line where it cannot be met."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from calibrated_model import write_calibrated_model
from cost_tables import cost_table
from tiny_model import INSTRUCTIONS, tiny_config, write_tiny_model

from deer_ros import DeerPolicy
from deer_ros.budget.budget import Budget
from deer_ros.budget.cost import CostModel
from deer_ros.budget.solution import solve
from deer_ros.budget.solver import exits_taken
from deer_ros.checkpoint.fingerprint import find_calibration
from deer_ros.cli.main import main
from deer_ros.model.config import DeerConfig


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_calibrated_model(tmp_path_factory.mktemp("models") / "tiny", episodes=30)


@pytest.fixture(scope="module")
def cost(model) -> CostModel:
    return CostModel(DeerConfig.load(model / "config.json"), prompt_tokens=13)


def answer(capsys, model, *arguments) -> dict:
    assert main(["solve", str(model), *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, model, *arguments) -> str:
    assert main(["solve", str(model), *map(str, arguments)]) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1, streams.err
    assert streams.err.startswith("deer solve: ")
    return streams.err


def test_the_answer_adds_up_under_another_metric_than_the_models_own(capsys, tmp_path):
    gated = dataclasses.replace(tiny_config().head, gate_width=8)
    model = write_calibrated_model(tmp_path / "gated", head=gated)
    facts = answer(
        capsys, model, "--average-gflops", 0.0003, "--metric", "learned", "--solver", "gamma"
    )
    spent = sum(e["share"] * e["step_gflops"] for e in facts["exits"])
    assert facts["metric"] == "learned"
    assert facts["expected_step_gflops"] == pytest.approx(spent, rel=1e-12)


@pytest.mark.parametrize("solver", ["optimal", "exponential", "gaussian", "gamma"])
@pytest.mark.parametrize("scope", ["llm", "step"])
def test_the_answer_is_the_solvers_and_adds_up(capsys, model, cost, solver, scope):
    costs = cost.exit_gflops(scope)
    asked = (costs[0] + costs[-1]) / 2
    facts = answer(
        capsys, model, "--average-gflops", repr(float(asked)), "--scope", scope, "--solver", solver
    )
    found = solve(
        Budget(average_gflops=asked, scope=scope, solver=solver), cost.config, cost, None,
        find_calibration(model),
    )
    assert facts["thresholds"][:-1] == list(found.thresholds[:-1])
    assert facts["thresholds"][-1] == 1e8
    assert [e["share"] for e in facts["exits"]] == list(found.exit_shares)
    assert facts[f"expected_{scope}_gflops"] <= asked * (1 + 1e-9)
    assert facts["expected_action_error"] == found.expected_action_error
    assert facts["binding"] == "average_gflops" and facts["reachable_unit"] == f"{scope}_gflops"
    assert facts["reachable"] == pytest.approx([costs[0], costs[-1]])
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    policy.set_thresholds(facts["thresholds"], metric=facts["metric"])


def test_limits_of_depth_instruction_and_timing(capsys, model, cost, tmp_path):
    facts = answer(capsys, model, "--peak-gflops", repr(float(cost.language_gflops(4))))
    assert facts["max_layer"] == 4 and facts["binding"] == "peak_gflops"
    assert facts["thresholds"] == [-1e8, 1e8], "as a policy does, which has nothing to save"
    assert [e["share"] for e in facts["exits"]] == [0, 1]
    assert answer(capsys, model, "--max-layer", 5)["max_layer"] == 4
    shorter = answer(capsys, model, "--instruction", INSTRUCTIONS[0])
    assert shorter["exits"][0]["llm_gflops"] == CostModel(cost.config, 6).language_gflops(2)
    assert (facts["prompt_tokens"], shorter["prompt_tokens"]) == (13, 6)
    table = tmp_path / "timing.json"
    table.write_text(json.dumps(cost_table((10.0, 4.0, 3.0)).to_json()))
    facts = answer(capsys, model, "--average-ms", 13, "--timing", table)
    assert facts["expected_ms"] <= 13 + 1e-9 and facts["binding"] == "average_ms"
    assert answer(capsys, model, "--latency-ms", 16, "--timing", table)["max_layer"] == 4


def test_a_table_of_fewer_layers_stands_for_the_others_too(capsys, model, tmp_path):
    table, of_all = tmp_path / "timing.json", cost_table((10.0,)).at_depth((2, 4, 6))
    table.write_text(json.dumps(cost_table((10.0,)).to_json()))
    facts = answer(capsys, model, "--average-ms", 11, "--timing", table)
    assert facts["binding"] == "average_ms" and facts["expected_ms"] <= 11 + 1e-9
    facts = answer(capsys, model, "--latency-ms", 1000, "--timing", table)
    assert (facts["max_layer"], facts["binding"]) == (6, "none")
    assert facts["expected_ms"] == pytest.approx(of_all.exits_ms()[-1])


def test_milliseconds_are_measured_with_the_nodes_threads(capsys, model, monkeypatch):
    taken = []
    monkeypatch.setattr("torch.set_num_threads", taken.append)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    answer(capsys, model, "--average-ms", 1e6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    answer(capsys, model, "--average-ms", 1e6)
    assert taken == [max(1, os.cpu_count() - 1)]


def test_without_a_table_milliseconds_are_measured_here(capsys, model):
    facts = answer(capsys, model, "--average-ms", 1e6)
    assert facts["binding"] == "none" and facts["expected_ms"] > 0


def test_people_get_what_binds_and_a_table(capsys, model, cost):
    assert main(["solve", str(model), "--average-gflops", str(cost.language_gflops(4))]) == 0
    out = capsys.readouterr().out
    for word in ("for prompts:   of 13 tokens", "what binds:    average_gflops", "reachable:",
                 "action error", "always", "expected share", "llm_gflops"):
        assert word in out


def test_an_action_error_is_certified_or_refused(capsys, model):
    facts = answer(capsys, model, "--max-action-error", 1.5, "--confidence", 0.6)
    assert facts["binding"] == "max_action_error"
    line = refused(capsys, model, "--max-action-error", 1e-5, "--max-layer", 2)
    assert "must be at least" in line


def test_what_cannot_be_met_is_one_line_with_the_reachable_interval(capsys, model, cost):
    line = refused(capsys, model, "--average-gflops", cost.language_gflops(2) / 2)
    for layers in (2, 6):
        assert f"{cost.language_gflops(layers):.6g}" in line
    assert "MiB" in refused(capsys, model, "--memory-mib", 1e-6)


@pytest.mark.parametrize("arguments, complaint", [
    (("--average-gflops", "nan"), "average_gflops is nan"),
    (("--average-gflops", "-1"), "average_gflops is -1"),
    (("--peak-gflops", "inf"), "peak_gflops is inf"),
    (("--memory-mib", "0"), "memory_mib is 0"),
    (("--max-action-error", "0.1", "--confidence", "1"), "confidence"),
    (("--max-layer", "1"), "max_layer is 1"),
    (("--steps-per-decision", "0"), "steps_per_decision is 0"),
    (("--max-layer-between", "1"), "max_layer_between is 1"),
    (("--max-action-error", "0.1", "--steps-per-decision", "2"), "steps_per_decision is 2"),
    (("--calibration", "/none.safetensors"), "/none.safetensors"),
    (("--average-ms", "5", "--timing", "/none.json"), "/none.json"),
])
def test_bad_input_is_one_line(capsys, model, arguments, complaint):
    assert complaint in refused(capsys, model, *arguments)


@pytest.mark.parametrize("harm, complaint", [
    ({"p50": float("inf")}, "exits[1].p50 of the cost table is inf ms"),
    ({"p99": -1.0}, "exits[1].p99 of the cost table is -1.0 ms"),
    ({"p50": None}, "cost table.exits[1].p50 is None"),
])
def test_times_that_nothing_can_take_are_one_line_with_the_file(
    capsys, model, tmp_path, harm, complaint
):
    values = cost_table((10.0, 4.0, 3.0)).to_json()
    values["exits"][1].update(harm)
    table = tmp_path / "timing.json"
    table.write_text(json.dumps(values))
    line = refused(capsys, model, "--average-ms", 13, "--timing", table)
    assert complaint in line and str(table) in line


def test_calibrations_that_are_missing_damaged_or_anothers_are_told(capsys, model, tmp_path):
    bare = write_tiny_model(tmp_path / "bare", seed=1)
    asked = ("--average-gflops", 2e-4)
    assert "deer calibrate" in refused(capsys, bare, *asked)
    shutil.copy(model / "calibration.safetensors", bare)
    assert "other weights" in refused(capsys, bare, *asked)
    (bare / "calibration.safetensors").write_bytes(b"damaged")
    assert "calibration.safetensors is no calibration" in refused(capsys, bare, *asked)
    assert "no model directory" in refused(capsys, tmp_path / "none", *asked)


def test_thresholds_that_are_kept_are_the_models_own(capsys, model, cost, tmp_path):
    folder = tmp_path / "kept"
    shutil.copytree(model, folder)
    asked = repr(float(cost.exit_gflops("llm")[:2].mean()))
    before = (folder / "config.json").read_bytes()
    kept = answer(capsys, folder, "--average-gflops", asked, "--keep")
    assert (folder / "config.json").read_bytes() != before
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    assert policy.thresholds[:-1] == tuple(kept["thresholds"][:-1])
    assert policy.rule.metric == kept["metric"]
    assert not [path for path in folder.iterdir() if path.name.endswith(".part")]
    answer(capsys, folder, "--average-gflops", asked, "--max-layer", 4, "--keep")
    assert DeerConfig.load(folder / "config.json").exits.thresholds[1:] == (1e8, 1e8)


def test_what_is_told_of_kept_thresholds_is_what_they_come_to(capsys, model, cost, tmp_path):
    folder = Path(shutil.copytree(model, tmp_path / "kept"))
    low, *_, high = cost.exit_gflops("llm")
    asked = ("--average-gflops", repr(float(low + 0.4 * (high - low))))
    mixed = answer(capsys, folder, *asked)
    assert 0 < mixed["next_row_share"] < 1, "or there is nothing to tell apart"
    assert main(["solve", str(folder), *asked]) == 0
    assert "of the decisions by dearer thresholds; --keep takes one" in capsys.readouterr().out
    kept = answer(capsys, folder, *asked, "--keep")
    assert kept["next_row_share"] == 0
    calibration = find_calibration(folder)
    thresholds = DeerConfig.load(folder / "config.json").exits.thresholds
    taken = exits_taken(calibration.deltas(), np.array(thresholds, np.float32))
    assert kept["expected_llm_gflops"] == pytest.approx(cost.exit_gflops("llm")[taken].mean())
    assert kept["expected_llm_gflops"] <= mixed["expected_llm_gflops"]
    errors = calibration.errors()[taken, np.arange(len(taken))]
    assert kept["expected_action_error"] == pytest.approx(errors.mean())


def test_a_cadence_is_solved_for_told_and_kept(capsys, model, cost, tmp_path):
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    low, *_, high = cost.exit_gflops("llm")
    asked = ("--average-gflops", repr(float(low + 0.3 * (high - low))))
    cadence = ("--steps-per-decision", 2, "--max-layer-between", 3)
    facts = answer(capsys, copy, *asked, *cadence, "--keep")
    assert (facts["steps_per_decision"], facts["max_layer_between"]) == (2, 2)
    assert facts["reachable"] == pytest.approx([low, (low + high) / 2])
    policy = DeerPolicy.from_pretrained(copy)
    assert policy.rule.cadence.arguments == {"steps_per_decision": 2, "max_layer_between": 2}
    # It is the model's own now.
    assert answer(capsys, copy, *asked, "--keep") == facts
    assert main(["solve", str(copy), *asked]) == 0
    assert "every 2 steps, in between no deeper than layer 2" in capsys.readouterr().out


def test_thresholds_are_not_kept_where_searched_ones_would_hide_them(capsys, model, tmp_path):
    folder = tmp_path / "searched"
    shutil.copytree(model, folder)
    before = (folder / "config.json").read_bytes()
    (folder / "thresholds.json").write_text("{}")
    line = refused(capsys, folder, "--peak-gflops", 1, "--keep")
    assert "thresholds.json" in line
    assert (folder / "config.json").read_bytes() == before
