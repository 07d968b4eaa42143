from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from deer_ros.budget.cost import CostModel
from deer_ros.checkpoint import load_model, weights_sha256
from deer_ros.cli.main import main
from deer_ros.model.config import ExitConfig, ProprioceptionConfig, VisionConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def info(capsys, *arguments) -> dict:
    assert main(["info", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))


def test_the_parts_are_all_of_the_model(capsys, folder):
    facts, model = info(capsys, folder), load_model(folder).model
    parameters = sum(p.numel() for p in model.parameters())
    assert facts["parameters"] == parameters
    assert sum(part["parameters"] for part in facts["parts"]) == parameters
    assert facts["bytes"] == 4 * parameters and facts["dtypes"] == ["F32"]
    sizes = {part["part"]: part["parameters"] for part in facts["parts"]}
    assert sizes["layer 3"] == sum(p.numel() for p in model.layers[2].parameters())
    assert sizes["head"] == sum(p.numel() for p in model.head.parameters())


def test_what_reads_the_robots_own_state_is_a_part_too(capsys, tmp_path):
    state = ProprioceptionConfig(("joint.one", "joint.two"), (0.0, 0.0), (1.0, 1.0))
    facts = info(capsys, write_tiny_model(tmp_path / "m", proprioception=state))
    assert sum(part["parameters"] for part in facts["parts"]) == facts["parameters"]
    (part,) = [part for part in facts["parts"] if part["part"] == "proprioception"]
    assert part["parameters"] > 0 and part["gflops"] > 0


def test_an_exit_needs_the_weights_that_a_model_cut_there_holds(capsys, folder):
    for known in info(capsys, folder)["exits"]:
        model = load_model(folder, max_layer=known["layer"]).model
        held = sum(p.numel() * p.element_size() for p in model.parameters())
        assert known["weights_mib"] * (1 << 20) == pytest.approx(held)


def test_costs_are_those_of_the_instructions_prompt(capsys, folder):
    facts = info(capsys, folder, "--instruction", "open the drawer")
    cost = CostModel(load_model(folder).model.config, prompt_tokens=6)
    assert facts["prompt_tokens"] == 6
    assert [e["llm_gflops"] for e in facts["exits"]] == [cost.language_gflops(n) for n in (2, 4, 6)]
    assert facts["exits"][1]["step_gflops"] == pytest.approx(
        cost.vision_gflops + cost.language_gflops(4) + cost.head_gflops(3)
    )
    assert facts["fixed_step_gflops"] == facts["exits"][0]["step_gflops"]
    whole = facts["exits"][-1]["step_gflops"] - cost.head_gflops(4) + cost.head_gflops(1)
    assert sum(part["gflops"] for part in facts["parts"]) == pytest.approx(whole)


def test_actions_exits_and_origin_are_told(capsys, folder):
    facts = info(capsys, folder)
    assert facts["trained_in"] == "simulation" and facts["calibrated"] is False
    assert facts["action"]["rate_hz"] == 20.0 and facts["action"]["frame"] == "world"
    assert [e["layer"] for e in facts["exits"]] == [2, 4, 6]
    assert [e["threshold"] for e in facts["exits"]] == [0.01, 0.01, "always"]


def test_a_models_own_cadence_is_told(capsys, tmp_path):
    exits = ExitConfig(steps_per_decision=2, max_layer_between=2)
    folder = write_tiny_model(tmp_path / "m", exits=exits)
    facts = info(capsys, folder)
    assert (facts["steps_per_decision"], facts["max_layer_between"]) == (2, 2)
    assert main(["info", str(folder)]) == 0
    assert "every 2 steps, in between no deeper than layer 2" in capsys.readouterr().out


def test_a_calibration_is_seen(capsys, folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "calibration.safetensors").write_bytes(b"")
    assert info(capsys, copy)["calibrated"] is True


def test_the_fingerprint_is_told_when_asked_for(capsys, folder):
    assert info(capsys, folder, "--sha256")["sha256"] == weights_sha256(folder)
    assert "sha256" not in info(capsys, folder)


@pytest.mark.parametrize("changes", [
    {}, {"exits": ExitConfig(interval=1)}, {"exits": ExitConfig(interval=9)},
    {"vision": VisionConfig("clip", image_size=32, width=16, patch_size=8, layers=2, heads=2)},
])
def test_people_get_tables(capsys, tmp_path, changes):
    folder = write_tiny_model(tmp_path / "m", **changes)
    assert main(["info", str(folder)]) == 0
    out = capsys.readouterr().out
    for word in ("trained in:", "simulation", "GFLOPs step", "layer 6", "always", "0.8 m/s"):
        assert word in out


def test_a_broken_directory_is_one_line_on_stderr(capsys, folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "model.safetensors").write_bytes(b"broken")
    for model, complaint in ((copy, "cannot be read"), (tmp_path / "no", "no model directory")):
        assert main(["info", str(model)]) == 2
        streams = capsys.readouterr()
        assert streams.out == "" and streams.err.count("\n") == 1
        assert streams.err.startswith("deer info: ") and complaint in streams.err


def test_weights_that_do_not_fit_are_refused_without_being_read(capsys, folder, tmp_path):
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    values = json.loads((copy / "config.json").read_text())
    values["language"]["mlp_ratio"] = 3
    (copy / "config.json").write_text(json.dumps(values))
    assert main(["info", str(copy)]) == 2
    assert "the configuration asks for (16, 48)" in capsys.readouterr().err
