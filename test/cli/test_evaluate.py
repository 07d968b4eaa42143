"""`deer evaluate` on the simulated robot; CALVIN and LIBERO are in test/evaluation."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import stat
import subprocess
import sys
import time

import numpy as np
import pytest
from calibrated_model import write_calibrated_model
from tiny_model import write_tiny_model

from deer_ros import DeerPolicy
from deer_ros.budget.cost import CostModel
from deer_ros.checkpoint import load_model
from deer_ros.cli.main import main
from deer_ros.model.config import DeerConfig
from deer_ros.report.locks import locked_file

pytest.importorskip("deer_ros.sim.robot")

TASK = "drawer-open"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", max_episode_steps=3)


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    """Two tasks, two seeds, four settings."""
    file = tmp_path_factory.mktemp("results") / "results.jsonl"
    asked = ("--tasks", f"{TASK},ball-red", "--episodes", "2", "--exits", "2,4")
    assert main(["evaluate", str(folder), *asked, "--out", str(file), "--json"]) == 0
    return file


def lines(file) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_setting_runs_every_task_and_seed(folder, capsys):
    asked = ["evaluate", str(folder), "--tasks", TASK, "--episodes", "2", "--exits", "2"]
    assert main([*asked, "--threshold", "0.5/-1/9", "--json"]) == 0
    rollouts = json.loads(capsys.readouterr().out)
    assert [r["setting"] for r in rollouts] == [
        name
        for name in ("own thresholds", "threshold 0.5/-1/9", "exit 2", "full depth")
        for _ in range(2)
    ]
    assert len({r["seed"] for r in rollouts}) == 2
    for rollout in rollouts:
        assert rollout["task"] == rollout["said"] == TASK and rollout["success"] is False
        assert rollout["steps"] == rollout["periods"] == 3
        assert sum(rollout["exits"].values()) == 3
        mean = np.average([int(n) for n in rollout["exits"]], weights=[*rollout["exits"].values()])
        assert rollout["mean_exit_layer"] == pytest.approx(mean)
        assert rollout["mean_step_gflops"] > rollout["mean_llm_gflops"] > 0
        assert rollout["mean_step_ms"] > 0
    depths = {r["setting"]: r["mean_exit_layer"] for r in rollouts}
    assert depths["exit 2"] == 2 and depths["full depth"] == 6
    assert main(asked) == 0
    table = capsys.readouterr().out
    rows = {name.strip(): rest.split() for name, _, rest in
            (line.partition("0.0 [0, 66]") for line in table.splitlines()) if rest.strip()}
    assert list(rows) == ["own thresholds", "exit 2", "full depth", TASK]
    assert rows["exit 2"][:2] == ["2", "2.00"]


def test_a_budget_is_a_setting(folder, capsys):
    """At or above full depth none needs a calibration."""
    asked = ["evaluate", str(folder), "--tasks", TASK, "--episodes", "1", "--json"]
    budgets = ["--average-gflops", "9", "--budget", "peak_gflops=1e-9,scope=llm"]
    assert main([*asked, *budgets[:2], "--budget", "average_gflops=9,scope=step,tracking=no"]) == 0
    depths = {r["setting"]: r["mean_exit_layer"] for r in json.loads(capsys.readouterr().out)}
    assert depths["average_gflops=9"] == depths["average_gflops=9,scope=step,tracking=no"] == 6
    assert main([*asked, *budgets[2:]]) == 2
    assert "peak_gflops" in capsys.readouterr().err


def test_a_budget_holds_in_every_episode_by_itself(tmp_path, capsys):
    """Its tracking starts anew, so that an episode is the same whichever ran before it."""
    model = str(write_calibrated_model(tmp_path / "model", max_episode_steps=12))
    asked = ["evaluate", model, "--tasks", TASK, "--json", "--exits", "2"]
    assert main([*asked, "--episodes", "1"]) == 0
    costs = {r["setting"]: r["mean_llm_gflops"] for r in json.loads(capsys.readouterr().out)}
    middle = (costs["exit 2"] + costs["full depth"]) / 2
    asked += ["--average-gflops", str(middle)]
    assert main([*asked, "--episodes", "2"]) == 0
    both = [r for r in json.loads(capsys.readouterr().out) if r["setting"].startswith("average")]
    assert main([*asked, "--episodes", "1", "--seed", "1"]) == 0
    alone = [r for r in json.loads(capsys.readouterr().out) if r["setting"].startswith("average")]
    for rollout in both:
        assert rollout["mean_llm_gflops"] == pytest.approx(middle, rel=0.25)
        assert len(rollout["exits"]) > 1
    assert (alone[0]["exits"], alone[0]["seed"]) == (both[1]["exits"], both[1]["seed"])
    assert main([*asked[:-1], str(costs["exit 2"] / 2)]) == 2
    assert "average_gflops" in capsys.readouterr().err


def test_a_budget_that_a_task_cannot_keep_is_refused_before_any_episode(
    folder, tmp_path, capsys, monkeypatch
):
    """The words of one task are more than those of the other, and cost more."""
    monkeypatch.setattr("deer_ros.sim.robot.SimulatedRobot.reset", None)  # nothing is run
    asked = ["evaluate", str(folder), "--tasks", f"{TASK},ball-owned", "--exits", "2"]
    least = CostModel(DeerConfig.load(folder / "config.json"), 6).exit_gflops("llm")[0]
    file = tmp_path / "results.jsonl"
    assert main([*asked, "--budget", f"peak_gflops={1.1 * least}", "--out", str(file)]) == 2
    said = capsys.readouterr().err
    assert "cannot be kept in the task ball-owned" in said and said.count("\n") == 1
    assert not file.exists()


def test_a_policy_runs_where_and_as_it_is_told(folder, capsys, monkeypatch):
    loaded = []

    def load(path, *how):
        loaded.append(how)
        return DeerPolicy(load_model(path))

    monkeypatch.setattr(DeerPolicy, "from_pretrained", load)
    asked = ["evaluate", str(folder), "--tasks", TASK, "--episodes", "1", "--json"]
    assert main(asked) == main([*asked, "--device", "auto", "--dtype", "float32"]) == 0
    assert loaded == [("cpu", "auto"), ("auto", "float32")]


def test_the_file_tells_every_episode_and_is_not_run_again(folder, results, capsys, monkeypatch):
    before = lines(results)
    assert [line["kind"] for line in before[:5]] == ["evaluation", *["setting"] * 4]
    episodes = [line for line in before if line["kind"] == "episode"]
    assert len(episodes) == 2 * 2 * 4
    monkeypatch.setattr("deer_ros.sim.robot.SimulatedRobot.reset", None)  # nothing is run
    asked = ("--tasks", f"{TASK},ball-red", "--episodes", "2", "--exits", "2,4")
    assert main(["evaluate", str(folder), *asked, "--out", str(results), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == [{k: v for k, v in e.items() if k != "kind"} for e in episodes]
    assert lines(results) == before


@pytest.mark.long
def test_a_killed_run_goes_on_where_it_was(folder, tmp_path, capsys):
    file = tmp_path / "results.jsonl"
    asked = [
        "evaluate", str(folder), "--tasks", TASK, "--episodes", "6", "--threshold", "0.2",
        "--out", str(file), "--json",
    ]  # fmt: skip
    running = subprocess.Popen(
        [sys.executable, "-m", "deer_ros.cli", *asked], stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not file.exists() or file.read_bytes().count(b"\n") < 6:
        assert running.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    kept = file.read_bytes()
    with file.open("ab") as stream:
        stream.write(b'{"kind": "episode", "succ')  # half a line, as a kill may leave one
    assert main(asked) == 0
    assert file.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    episodes = [line for line in lines(file) if line["kind"] == "episode"]
    keys = [(e["setting"], e["task"], e["seed"]) for e in episodes]
    assert len(keys) == len(set(keys)) == 3 * 6
    assert len(json.loads(capsys.readouterr().out)) == 3 * 6


def test_a_file_is_not_continued_with_another_model_or_another_meaning(
    folder, results, tmp_path, capsys
):
    before = results.read_bytes()
    asked = ["--tasks", TASK, "--episodes", "1", "--out", str(results)]
    stranger = write_tiny_model(tmp_path / "stranger", seed=1, max_episode_steps=3)
    assert main(["evaluate", str(stranger), *asked]) == 2
    assert "results of another evaluation: its weights" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    kept = dict(config["exits"])
    for change, complaint in (
        ({"exits": kept | {"thresholds": [0.5, 0.5, 1e8]}}, "episodes of 'own thresholds' as"),
        ({"exits": kept | {"steps_per_decision": 2}}, "episodes of 'own thresholds' as"),
        ({"exits": kept | {"metric": "cosine"}}, "episodes of 'own thresholds' as"),
        ({"max_episode_steps": 4}, "its max_steps is 3, not 4"),
        ({"action": config["action"] | {"linear_scale": 0.05}}, "its config is"),
        ({"action": config["action"] | {"executions_per_step": 2}}, "its config is"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        try:
            assert main(["evaluate", str(folder), *asked]) == 2
        finally:
            (folder / "config.json").write_text(json.dumps(config))
        assert complaint in capsys.readouterr().err
        assert results.read_bytes() == before
    assert main(["evaluate", str(folder), *asked, "--dtype", "bfloat16"]) == 2
    assert "its dtype is None, not 'bfloat16'" in capsys.readouterr().err


def test_a_file_of_another_simulator_is_not_continued(folder, results, capsys, monkeypatch):
    asked = ["--tasks", TASK, "--episodes", "1", "--out", str(results)]
    monkeypatch.setattr("deer_ros.evaluation.metaworld.versions", lambda *of: {"mujoco": "1.5"})
    assert main(["evaluate", str(folder), *asked]) == 2
    assert "its simulator is {" in capsys.readouterr().err


def test_a_file_of_before_that_tells_less_is_continued_and_compared(
    folder, results, tmp_path, capsys, monkeypatch
):
    first, *rest = lines(results)
    del first["config"], first["simulator"]
    older = tmp_path / "older.jsonl"
    older.write_text("".join(json.dumps(line) + "\n" for line in (first, *rest)))
    monkeypatch.setattr("deer_ros.sim.robot.SimulatedRobot.reset", None)  # nothing is run
    asked = ["--tasks", TASK, "--episodes", "1", "--out", str(older), "--json"]
    assert main(["evaluate", str(folder), *asked]) == 0
    assert lines(older)[0] == first
    assert main(["compare", str(older), "--against-file", str(results)]) == 0


def test_a_file_is_written_by_one_evaluation_at_a_time(folder, tmp_path, capsys):
    file = tmp_path / "made" / "results.jsonl"
    asked = ["evaluate", str(folder), "--tasks", TASK, "--episodes", "1", "--out", str(file)]
    with locked_file(file, "evaluates"):
        assert main(asked) == 2
        assert f"another process evaluates into {file}" in capsys.readouterr().err
    assert main(asked) == 0


@pytest.mark.parametrize("content", ["notes that are dear to me", "a\nb\n", "{}\n", "[1]\n"])
def test_another_kind_of_file_is_left_alone(folder, tmp_path, capsys, content):
    file = tmp_path / "notes.txt"
    file.write_text(content)
    assert main(["evaluate", str(folder), "--tasks", TASK, "--out", str(file)]) == 2
    assert "is no file of `deer evaluate --out`" in capsys.readouterr().err
    assert file.read_text() == content


def test_several_processes_keep_the_same_episodes_and_end_quietly(folder, tmp_path, capfd):
    asked = ["evaluate", str(folder), "--tasks", TASK, "--episodes", "3", "--json", "--out"]
    found = []
    for number in (1, 2):
        file = tmp_path / f"{number}.jsonl"
        assert main([*asked, str(file), "--processes", str(number)]) == 0
        episodes = [line for line in lines(file) if line["kind"] == "episode"]
        found.append(sorted((e["setting"], e["seed"], e["mean_llm_gflops"]) for e in episodes))
    assert found[0] == found[1]
    # EGL, where it draws, complains of contexts that outlive it.
    assert "Exception ignored" not in capfd.readouterr().err


def test_exchanged_words_are_said_and_judged(folder, capsys):
    tasks = "faucet-open,ball-left"
    asked = ["evaluate", str(folder), "--tasks", tasks, "--episodes", "1", "--swap-words"]
    assert main([*asked, "--json"]) == 0
    said = {(r["task"], r["said"]) for r in json.loads(capsys.readouterr().out)}
    assert said == {("faucet-open", "faucet-close"), ("ball-left", "ball-middle")}
    assert main(asked) == 0
    assert "faucet-open, told faucet-close" in capsys.readouterr().out


@pytest.mark.parametrize("ending", ["png", "svg", "pdf"])
def test_the_curve_is_drawn(folder, results, tmp_path, ending):
    picture = tmp_path / "made" / f"curve.{ending}"
    asked = ("--tasks", f"{TASK},ball-red", "--episodes", "2", "--exits", "2,4")
    kept = ("--out", str(results), "--plot", str(picture), "--json")
    assert main(["evaluate", str(folder), *asked, *kept]) == 0
    assert picture.stat().st_size > 5000


def test_what_was_found_is_told_though_the_curve_cannot_be_written(
    folder, results, tmp_path, capsys, monkeypatch
):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    picture = tmp_path / "curve.png"
    monkeypatch.setattr("deer_ros.report.success_curve.write_bytes", fail)
    asked = ("--tasks", f"{TASK},ball-red", "--episodes", "2", "--exits", "2,4")
    kept = ("--out", str(results), "--plot", str(picture), "--json")
    assert main(["evaluate", str(folder), *asked, *kept]) == 2
    assert len(json.loads(capsys.readouterr().out)) == 2 * 2 * 4


@pytest.mark.parametrize("option", ["--out", "--plot"])
def test_where_nothing_can_be_written_is_said_before_any_episode(
    folder, tmp_path, capsys, monkeypatch, option
):
    monkeypatch.setattr("deer_ros.sim.robot.SimulatedRobot.reset", None)  # nothing is run
    place = tmp_path / "curve.png"
    os.mknod(place, stat.S_IFSOCK | 0o600)
    assert main(["evaluate", str(folder), "--tasks", TASK, option, str(place)]) == 2
    assert capsys.readouterr().err == f"deer evaluate: {place} is a socket; name a file.\n"


def test_what_is_kept_is_json_whatever_a_threshold_is(folder, tmp_path):
    file = tmp_path / "results.jsonl"
    asked = ["evaluate", str(folder), "--tasks", TASK, "--episodes", "1", "--out", str(file)]
    for _ in range(2):  # and the second goes on with it
        assert main([*asked, "--threshold", "inf/-inf/inf"]) == 0
    kept = [json.loads(line, parse_constant=pytest.fail) for line in file.read_text().splitlines()]
    of = {line["setting"]: line["definition"] for line in kept if line["kind"] == "setting"}
    assert of["threshold inf/-inf/inf"]["thresholds"] == [1e8, -1e8, 1e8]
    assert all(map(math.isfinite, of["own thresholds"]["thresholds"]))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--tasks", "juggle"), "juggle"),
        (("--episodes", "0"), "--episodes must be at least 1"),
        (("--processes", "0"), "--processes is 0"),
        (("--exits", "3"), "--exits has 3; the exits are after layers"),
        (("--exits", "two"), "--exits has two; the exits are after layers"),
        (("--exits", "2,2"), "'exit 2' was asked for twice"),
        (("--threshold", "much"), "--threshold has 'much'"),
        (("--threshold", "nan"), "NaN is not allowed"),
        (("--threshold", "1/2"), "2 thresholds were given"),
        (("--preset", "nonsense"), "there is no preset 'nonsense'"),
        (("--average-gflops", "0"), "average_gflops is 0.0; it must be a finite number above 0"),
        (("--average-gflops", "few"), "average_gflops=few; it must be a number"),
        (("--budget", "scope=step"), "limits nothing"),
        (("--budget", "money=3"), "--budget has 'money=3'"),
        (("--budget", "average_gflops=9,tracking=perhaps"), "it must be yes or no"),
        (("--budget", "average_gflops=9,scope=head"), "scope is 'head'"),
        (("--plot", "curve.gif"), "must end in one of png, svg, pdf"),
        (("--swap-words", "--tasks", "drawer-open"), "drawer-open serves no other task's words"),
        (("--device", "toaster"), "device is 'toaster'"),
        (("--dtype", "nonsense"), "nonsense"),
        (("--suite", "libero_goal"), "--suite is for --env libero; this is --env metaworld"),
        (("--chains", "1000"), "--chains is for --env calvin; this is --env metaworld"),
        (("--env", "libero", "--dataset", "x"), "--dataset is for --env calvin; this is --env lib"),
        (("--env", "calvin", "--swap-words"), "--swap-words is for --env metaworld and libero"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(folder, capsys, arguments, complaint):
    assert main(["evaluate", str(folder), *arguments]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


def test_an_unknown_environment_is_refused(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(folder), "--env", "moon"])
    assert ended.value.code == 2
    assert "metaworld" in capsys.readouterr().err
