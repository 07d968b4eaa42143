from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_model import write_tiny_model

from deer_ros.budget.cost import CostModel
from deer_ros.budget.timing import CostTable
from deer_ros.checkpoint import load_model
from deer_ros.cli.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def bench(capsys, *arguments) -> dict:
    assert main(["bench", *map(str, arguments), "--steps", "5", "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))


def test_every_part_has_its_time_cost_and_bytes(capsys, folder):
    facts = bench(capsys, folder, "--threads", "1")
    model = load_model(folder).model
    names = ["preprocessing", "vision", "resampler", "embedding", "recurrent update",
             "head, an answer", *(f"layer {n}" for n in range(1, 7))]
    parts = {part["part"]: part for part in facts["parts"]}
    assert list(parts) == names
    assert sum(part["bytes"] or 0 for part in parts.values()) == sum(
        p.numel() * p.element_size() for p in model.parameters()
    )
    for name, part in parts.items():
        assert name == "embedding" or 0 < part["p50_ms"] <= part["p99_ms"]
    cost = CostModel(model.config, facts["cost_table"]["prompt_tokens"])
    assert parts["vision"]["gflops"] + parts["resampler"]["gflops"] == pytest.approx(
        cost.vision_gflops)
    layers = [parts[f"layer {n}"]["gflops"] for n in range(1, 7)]
    assert sum(layers) == pytest.approx(cost.language_gflops(6))
    head = parts["recurrent update"]["gflops"] + parts["head, an answer"]["gflops"]
    assert head == pytest.approx(cost.head_gflops(1))
    assert facts["load_s"] > 0 and facts["weights_mib"] > 0


def test_exits_cost_more_the_deeper_they_are_and_the_fixed_part_is_said(capsys, folder):
    facts = bench(capsys, folder)
    exits = facts["exits"]
    assert [e["layer"] for e in exits] == [2, 4, 6]
    for name in ("llm_gflops", "step_gflops", "llm_ms", "p50_ms", "weights_mib"):
        values = [e[name] for e in exits]
        assert values == sorted(values) and values[0] > 0, name
    assert facts["fixed"]["p99_ms"] == exits[0]["p99_ms"]
    assert facts["fixed"]["step_gflops"] == exits[0]["step_gflops"]


@pytest.mark.parametrize("max_layer", [2, 4])
def test_fewer_layers_are_loaded_and_measured(capsys, folder, max_layer):
    facts = bench(capsys, folder, "--max-layer", max_layer, "--dtype", "bfloat16")
    assert facts["exits"][-1]["layer"] == max_layer
    assert len(facts["cost_table"]["layers"]) == max_layer
    assert facts["cost_table"]["dtype"] == "bfloat16"
    assert facts["exits"][-1]["weights_mib"] == pytest.approx(facts["weights_mib"])


def test_what_it_writes_is_a_cost_table_again(capsys, folder, tmp_path):
    facts = bench(capsys, folder, "--out", tmp_path / "bench.json")
    table = CostTable.load(tmp_path / "bench.json")
    assert table.to_json() == facts["cost_table"]
    assert table.steps == 5 and table.device == "cpu" and table.machine
    (tmp_path / "table.json").write_text(json.dumps(table.to_json()))
    assert CostTable.load(tmp_path / "table.json") == table


def test_people_are_told_the_fixed_part_and_every_exit(capsys, folder):
    assert main(["bench", str(folder), "--steps", "5"]) == 0
    out = capsys.readouterr().out
    assert "fixed part:" in out and "recurrent update" in out and "ms step p99" in out


def test_where_nothing_can_be_written_is_said_before_anything_is_measured(
    capsys, folder, tmp_path, monkeypatch
):
    monkeypatch.setattr("deer_ros.cli.bench.measure", lambda arguments: pytest.fail("measured"))
    assert main(["bench", str(folder), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"deer bench: {tmp_path} is a folder; name a file.\n"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--steps", "0"], "--steps is 0; it must be at least 1"),
     (["--threads", "0"], "--threads is 0; it must be 1 to 1024"),
     (["--threads", "-1"], "--threads is -1; it must be 1 to 1024"),
     (["--threads", "99999"], "--threads is 99999; it must be 1 to 1024"),
     (["--dtype", "int3"], "dtype is 'int3'"),
     (["--max-layer", "1"], "max_layer is 1; the first exit")],
)  # fmt: skip
def test_usage_errors_are_one_line(capsys, folder, arguments, complaint):
    assert main(["bench", str(folder), *arguments]) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1
