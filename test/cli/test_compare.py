"""`deer compare`, on files of results that are written here."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from deer_ros.cli.main import main
from deer_ros.evaluation.results import ResultsFile, read_results

TASK, OTHER = "drawer-open", "ball-red"
LAYERS = {"own thresholds": 3, "exit 2": 2, "exit 4": 4, "full depth": 6}
FIXED = {"exit 2": {"exit_layer": 2}, "exit 4": {"exit_layer": 4}, "full depth": {"exit_layer": 6}}


def write_results(file: Path, settings=tuple(LAYERS), **about) -> Path:
    """Two tasks, two seeds; a layer costs 1 GFLOP, the rest of a step 10."""
    kept = ResultsFile(file, {"environment": "metaworld", "weights": "w", **about})
    for setting in settings:
        kept.define(setting, FIXED.get(setting, {"thresholds": [0.5]}))
    for setting in settings:
        layer = LAYERS[setting]
        for task in (TASK, OTHER):
            for seed in (0, 1):
                kept.add({
                    "success": seed == 0, "steps": 3, "periods": 3, "mean_exit_layer": layer,
                    "mean_llm_gflops": layer, "mean_step_gflops": 10 + layer, "mean_step_ms": 1.0,
                    "exits": {str(layer): 3}, "setting": setting, "task": task, "seed": seed,
                    "said": task,
                })  # fmt: skip
    return file


@pytest.fixture
def results(tmp_path) -> Path:
    return write_results(tmp_path / "results.jsonl")


def lines(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def with_outcomes(results, file, outcomes):
    """The file of results with other successes: outcomes maps setting to what succeeded."""
    with file.open("w") as stream:
        for line in lines(results):
            if line["kind"] == "episode":
                line["success"] = outcomes[line["setting"]](line)
            stream.write(json.dumps(line) + "\n")
    return file


def test_settings_are_compared_in_pairs(results, tmp_path, capsys):
    file = with_outcomes(results, tmp_path / "changed.jsonl", {
        "own thresholds": lambda line: True,
        "exit 2": lambda line: False,
        "exit 4": lambda line: line["task"] == TASK,
        "full depth": lambda line: line["seed"] % 2 == 0,
    })  # fmt: skip
    assert main(["compare", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rates = {s["setting"]: s["success"]["estimate"] for s in found["settings"]}
    assert rates == {"own thresholds": 1, "exit 2": 0, "exit 4": 0.5, "full depth": 0.5}
    own, exit_2, exit_4 = found["comparisons"]
    assert {c["against"] for c in found["comparisons"]} == {"full depth"}
    assert (own["pairs"], own["only_ours"], own["only_theirs"], own["p"]) == (4, 2, 0, 0.5)
    assert own["difference"]["estimate"] == 0.5
    assert (exit_4["only_ours"], exit_4["only_theirs"]) == (1, 1)
    assert exit_2["llm_cost_factor"] == pytest.approx(3) and not exit_2["lines"]
    assert [line["scope"] for line in own["lines"]] == ["llm", "step"]
    assert all(line["above"]["estimate"] > 0 for line in own["lines"])
    assert main(["compare", str(file), "--settings", "exit 2", "--against", "exit 4"]) == 0
    table = capsys.readouterr().out
    assert "-50.0 [" in table and "2.00 x" in table


def test_an_evaluation_that_was_stopped_is_compared_as_far_as_it_went(results, tmp_path, capsys):
    begun = [line for line in lines(results) if line["kind"] != "episode"
             or line["setting"] == "own thresholds" or line["task"] == TASK]  # fmt: skip
    file = tmp_path / "stopped.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in begun))
    assert main(["compare", str(file)]) == 0
    table = capsys.readouterr().out
    cells = {row.split()[0]: row.count("[") for row in table.splitlines() if "[" in row}
    assert cells[TASK] == 4 and cells[OTHER] == 1


def without(results, file, is_lost):
    """The file of results without the episodes that are lost."""
    kept = [line for line in lines(results) if line["kind"] != "episode" or not is_lost(line)]
    file.write_text("".join(json.dumps(line) + "\n" for line in kept))
    return str(file)


def test_a_stopped_evaluation_is_compared_to_the_deepest_exit_that_was_run(
    results, tmp_path, capsys
):
    stopped = without(results, tmp_path / "a.jsonl", lambda e: e["setting"] == "full depth")
    assert main(["compare", stopped, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["comparisons"]
    assert {c["against"] for c in found} == {"exit 4"} and len(found) == 2


def test_without_a_fixed_exit_the_summaries_are_told(results, tmp_path, capsys):
    stopped = write_results(tmp_path / "b.jsonl", ["own thresholds", "exit 2"])
    kept = without(stopped, tmp_path / "c.jsonl", lambda e: False)
    renamed = Path(kept).read_text().replace('"exit_layer": 2', '"thresholds": [0.1]')
    Path(kept).write_text(renamed)
    assert main(["compare", kept]) == 0
    captured = capsys.readouterr()
    assert "own thresholds" in captured.out and "no fixed exit to compare with" in captured.err
    assert main(["compare", kept, "--settings", "exit 2"]) == 2


def test_a_setting_without_a_common_scene_does_not_end_the_comparison_of_others(
    results, tmp_path, capsys
):
    stopped = without(results, tmp_path / "a.jsonl", lambda e: (
        e["task"] == OTHER if e["setting"] == "exit 2" else
        e["task"] == TASK if e["setting"] == "full depth" else False))  # fmt: skip
    assert main(["compare", stopped, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert [c["setting"] for c in found["comparisons"]] == ["own thresholds", "exit 4"]
    assert len(found["settings"]) == 4
    assert "exit 2 and 'full depth' have no task and seed in common" in captured.err
    assert main(["compare", stopped, "--settings", "exit 2"]) == 2
    assert "no task and seed in common" in capsys.readouterr().err


def with_costs(results, file, cost):
    """The file of results with other costs; cost: of an episode's line, None takes it away."""
    kept = []
    for line in lines(results):
        if line["kind"] == "episode":
            line["mean_llm_gflops"] = line["mean_step_gflops"] = cost(line)
        if line.get("mean_llm_gflops", 0) is not None:
            kept.append(json.dumps(line) + "\n")
    file.write_text("".join(kept))
    return file


@pytest.mark.parametrize(("in_first", "in_other", "ends"), [
    # On what all three have, the exit that costs less in the mean costs more.
    ({"own thresholds": 5.5, "exit 2": 9, "exit 4": 6}, {"exit 2": 1}, []),
    # There the setting costs less than either exit, though in the mean of all its scenes more.
    ({"own thresholds": 1, "exit 2": 2, "exit 4": 4}, {"own thresholds": 5}, []),
    # As in the first, and the next two embrace the cost.
    ({"own thresholds": 5.5, "exit 2": 9, "exit 4": 5}, {"exit 2": 0.5},
     [("exit 4", "full depth")] * 2),
])
def test_no_line_is_drawn_through_exits_that_do_not_embrace_the_cost_on_common_scenes(
    results, tmp_path, capsys, in_first, in_other, ends
):
    costs = {TASK: {"full depth": 20, **in_first}, OTHER: {"full depth": 20, **in_other}}
    file = with_costs(results, tmp_path / "stopped.jsonl",
                      lambda line: costs[line["task"]].get(line["setting"]))
    assert main(["compare", str(file), "--settings", "own thresholds", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert [(line["cheaper"], line["dearer"]) for line in found["lines"]] == ends


def test_two_models_are_compared_on_the_scenes_that_both_were_run_in(results, tmp_path, capsys):
    always = {name: lambda line: True for name in ("own thresholds", "exit 2", "exit 4")}
    first = with_outcomes(results, tmp_path / "a.jsonl", {**always, "full depth": lambda line: 1})
    never = {name: lambda line: False for name in always}
    second = with_outcomes(results, tmp_path / "b.jsonl", {**never, "full depth": lambda line: 0})
    kept = [line for line in second.read_text().splitlines() if f'"task": "{OTHER}"' not in line]
    second.write_text("\n".join(kept) + "\n")
    asked = ["compare", str(first), "--settings", "exit 2", "--against", "exit 4"]
    assert main([*asked, "--against-file", str(second), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert (found["pairs"], found["only_ours"]) == (2, 2)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--settings", "exit 5"), "has no setting 'exit 5'; it has own thresholds, exit 2"),
        (("--against", "exit 5"), "has no setting 'exit 5'"),
        (("--against-file", "nowhere.jsonl"), "there is no file of results nowhere.jsonl"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(results, capsys, arguments, complaint):
    assert main(["compare", str(results), *arguments]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "changes", "complaint"),
    [
        ("setting", {"setting": None}, "the setting None is {'thresholds'"),
        ("setting", {"definition": [1]}, "is damaged: the setting 'own thresholds' is [1]"),
        ("episode", {"exits": {"two": 3}}, "has no episodes of single tasks (invalid literal"),
        ("episode", {"exits": [2]}, "has no episodes of single tasks"),
        ("episode", {"steps": None}, "has no episodes of single tasks (its steps is None)"),
        ("episode", {"steps": 0}, "single tasks (its steps is 0; 1 to 1e+15 can be)"),
        ("episode", {"mean_step_ms": 10**400}, "has no episodes of single tasks (its mean_step_ms"),
        ("episode", {"mean_step_ms": -1.0}, "has no episodes of single tasks (its mean_step_ms is"),
        ("episode", {"exits": {"2": "3"}}, "has no episodes of single tasks ('str' object cannot"),
        ("episode", {"mean_step_ms": math.nan}, "line 6 of {} has NaN or infinity"),
        ("evaluation", {"max_steps": math.inf}, "line 1 of {} has NaN or infinity"),
        ("episode", {"task": ["push"]}, "has no episodes of single tasks (its task is ['push'])"),
        ("episode", {"kind": ["episode"]}, "is no file of `deer evaluate --out`"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(results, capsys, kind, changes, complaint):
    damaged = lines(results)
    next(line for line in damaged if line["kind"] == kind).update(changes)
    results.write_text("".join(json.dumps(line) + "\n" for line in damaged))
    assert main(["compare", str(results)]) == 2
    said = capsys.readouterr().err
    complaint = complaint.replace("{}", str(results))
    assert f"{results} " in said and complaint in said and said.count("\n") == 1


def test_a_setting_that_costs_nothing_has_no_factor(results, tmp_path, capsys):
    file = with_costs(results, tmp_path / "free.jsonl",
                      lambda line: 0.0 if line["setting"] == "exit 2" else 4.0)
    assert main(["compare", str(file), "--settings", "exit 2", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert found["llm_cost_factor"] is None and found["step_cost_factor"] is None
    assert main(["compare", str(file), "--settings", "exit 2"]) == 0
    assert " x " not in capsys.readouterr().out


def test_files_of_before_that_say_infinity_for_a_threshold_are_read(results, capsys):
    older = results.read_text().replace('"thresholds": [0.5]', '"thresholds": [0.5, Infinity]')
    assert "Infinity" in older
    results.write_text(older)
    assert read_results(results).definitions["own thresholds"] == {"thresholds": [0.5, 1e8]}
    assert main(["compare", str(results)]) == 0


def test_of_one_setting_its_summary_is_told(tmp_path, capsys):
    file = write_results(tmp_path / "one.jsonl", ["own thresholds"])
    assert main(["compare", str(file), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    (summary,) = found["settings"]
    assert summary["success"]["low"] < summary["success"]["estimate"] == 0.5
    assert found["comparisons"] == []
    assert main(["compare", str(file)]) == 0
    assert "in pairs" not in capsys.readouterr().out


def test_evaluations_of_other_lengths_are_no_pairs_unless_a_file_does_not_say(tmp_path, capsys):
    files = [
        str(write_results(tmp_path / f"{number}.jsonl", **about))
        for number, about in enumerate(({"max_steps": 3}, {"max_steps": 4}, {"max_steps": None}))
    ]
    assert main(["compare", files[0], "--against-file", files[1]]) == 2
    assert "max_steps is 3 in one, 4 in the other" in capsys.readouterr().err
    assert main(["compare", files[0], "--against-file", files[2]]) == 0
