"""The bundled model does in a few episodes about what its card says of many."""

from __future__ import annotations

import json

import pytest

from deer_ros.cli.main import main
from deer_ros.sim.tasks import DEMONSTRATION_TASKS, TASKS

pytest.importorskip("deer_ros.sim.robot")

EXCHANGED = [task for task in DEMONSTRATION_TASKS if TASKS[task].other]


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """An episode of every task, at three settings."""
    file = tmp_path_factory.mktemp("bundled") / "results.jsonl"
    # Seeds that no figure of the card is of.
    asked = ("--seed", "2000", "--episodes", "1", "--exits", "1", "--out", str(file))
    assert main(["evaluate", *asked]) == 0
    return [json.loads(line) for line in file.read_text().splitlines()[1:]]


def of(episodes, setting: str, name: str) -> float:
    values = [e[name] for e in episodes if e.get("setting") == setting and name in e]
    assert values
    return sum(values) / len(values)


def test_at_full_depth_it_does_nearly_all_tasks(episodes):
    assert of(episodes, "full depth", "success") >= 0.85


def test_its_thresholds_cost_a_fraction_and_do_nearly_as_well(episodes):
    assert of(episodes, "own thresholds", "success") >= of(episodes, "full depth", "success") - 0.1
    cost = of(episodes, "own thresholds", "mean_llm_gflops")
    assert cost <= 0.25 * of(episodes, "full depth", "mean_llm_gflops")
    step = of(episodes, "own thresholds", "mean_step_gflops")
    assert step <= 2 / 3 * of(episodes, "full depth", "mean_step_gflops")


def test_its_first_exit_alone_does_not_suffice(episodes):
    assert of(episodes, "exit 1", "success") < of(episodes, "full depth", "success")


def test_it_does_what_is_said_not_what_the_scene_was_made_for(capsys):
    asked = ("--seed", "2000", "--episodes", "1", "--swap-words", "--json")
    assert main(["evaluate", *asked, "--tasks", ",".join(EXCHANGED)]) == 0
    told = json.loads(capsys.readouterr().out)
    done = [e["success"] for e in told if e["setting"] == "full depth"]
    assert len(done) == len(EXCHANGED) >= 6
    assert sum(done) / len(done) >= 0.6
