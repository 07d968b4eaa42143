"""`deer search` from the command line: workers, interruptions, refusals, and what it leaves."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic_scorer
from calibrated_model import write_calibrated_model
from tiny_model import write_tiny_model

from deer_ros import DeerPolicy
from deer_ros.checkpoint import weights_sha256
from deer_ros.checkpoint.directory import read_config
from deer_ros.cli.main import main
from deer_ros.model.config import ExitConfig
from deer_ros.stepping.settings import default_thresholds

SCORER = ("--scorer", "synthetic_scorer:score", "--sampler", "tpe")
TEST_FOLDER = Path(__file__).parents[1]

# Says when it is called, and waits for a file before it answers the third time and from then on.
SLOW_SCORER = """
import time
from pathlib import Path
from synthetic_scorer import score as quick
calls = 0
def score(*arguments):
    global calls
    calls += 1
    Path(f"called_{calls}").touch()
    while calls > 2 and not Path("go_on").exists():
        time.sleep(0.02)
    return quick(*arguments)
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def model(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "tiny"))


def search(capsys, *arguments) -> dict:
    """What a search that is to succeed says."""
    assert main(["search", *map(str, arguments), *SCORER, "--json"]) == 0
    return json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))


def start_process(folder: Path, *arguments) -> subprocess.Popen:
    """A worker of its own, in `folder`."""
    paths = [str(TEST_FOLDER), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-m", "deer_ros.cli", "search", *map(str, arguments)], cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )


def wait_for(file: Path, process: subprocess.Popen) -> None:
    while not file.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def test_the_model_runs_by_what_was_found_and_its_files_stay_as_they_were(
    capsys, model, tmp_path
):
    config, weights = (model / "config.json").read_bytes(), weights_sha256(model)
    before = sorted(path.name for path in model.iterdir())
    found = search(capsys, model, "--trials", 15)
    assert found["taken"] == "best trial" and found["keeps_budget"] is True
    assert found["file"] == str(model / "thresholds.json")
    assert (model / "config.json").read_bytes() == config and weights_sha256(model) == weights
    assert sorted(p.name for p in model.iterdir()) == sorted([*before, "thresholds.json"])

    policy = DeerPolicy.from_pretrained(model, device="cpu")
    assert policy.thresholds[:2] == tuple(found["thresholds"][:2])
    assert policy.thresholds[:2] == tuple(found["best"]["thresholds"][:2])
    assert read_config(model).thresholds == policy.config.thresholds  # for `deer evaluate`
    # The node's default for exit.thresholds.
    assert default_thresholds(policy.config)[:2] == policy.thresholds[:2]
    assert main(["info", str(model), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [e["threshold"] for e in facts["exits"]] == [*policy.thresholds[:2], "always"]
    assert facts["searched"]["reason"] == found["reason"]
    assert main(["info", str(model)]) == 0
    assert "thresholds.json, 15 trials with synthetic_scorer:score" in capsys.readouterr().out

    (model / "thresholds.json").unlink()
    assert DeerPolicy.from_pretrained(model, device="cpu").thresholds[:2] == (0.01, 0.01)


def test_people_are_told_what_is_taken_and_why(capsys, model):
    assert main(["search", str(model), *SCORER, "--trials", "12"]) == 0
    streams = capsys.readouterr()
    for words in ("taken:    the best trial", "threshold after layer 4", "success, held-out seeds",
                  "in pairs: +"):
        assert words in streams.out
    assert "12/12 trial 11: success" in streams.err


def test_a_start_that_nothing_betters_is_what_is_written(capsys, model):
    start = ",".join(map(str, synthetic_scorer.BEST))
    found = search(capsys, model, "--trials", 3, "--start", f"{start},1e8")
    assert found["taken"] == "start" and "start" in found["reason"]
    kept = json.loads((model / "thresholds.json").read_text())
    assert kept["thresholds"] == [*synthetic_scorer.BEST, 1e8]


def test_a_calibrated_model_starts_from_the_solved_thresholds(capsys, tmp_path):
    model = write_calibrated_model(tmp_path / "calibrated")
    assert main(["info", str(model), "--json"]) == 0
    costs = [e["llm_gflops"] for e in json.loads(capsys.readouterr().out)["exits"]]
    budget = (costs[0] + costs[2]) / 2
    copy = str(shutil.copytree(model, tmp_path / "copy"))
    assert main(["solve", copy, "--average-gflops", str(budget), "--json", "--keep"]) == 0
    solved = json.loads(capsys.readouterr().out)["thresholds"]
    # The scorer costs more than that: all trials exceed the budget, which is a failed check.
    scorer = ("--scorer", "synthetic_scorer:luck_in_gflops", "--sampler", "tpe")
    asked = ["search", str(model), *scorer, "--average-gflops", str(budget), "--trials", "2"]
    assert main([*asked, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["start"]["thresholds"] == solved
    assert found["taken"] == "start" and "more than the budget" in found["reason"]


def test_a_budget_beyond_what_the_models_cadence_can_spend_is_named(capsys, tmp_path):
    exits = ExitConfig(2, steps_per_decision=2, max_layer_between=2)
    model = write_calibrated_model(tmp_path / "own", exits=exits)
    scorer = ("--scorer", "synthetic_scorer:luck_in_gflops", "--sampler", "tpe", "--trials", "1")
    assert main(["search", str(model), *scorer, "--average-gflops", "100"]) == 0
    said = capsys.readouterr().err
    assert "average_gflops is 100; this model decides every 2 steps, in between" in said
    assert "the budget limits nothing" in said


@pytest.mark.parametrize("factor", [1e-3, 1e3])
@pytest.mark.parametrize("scope", ["llm", "step"])
def test_costs_in_another_unit_are_not_compared_with_gflops(
    capsys, monkeypatch, model, tmp_path, scope, factor
):
    monkeypatch.setattr(
        synthetic_scorer, "score",
        lambda *arguments: (synthetic_scorer.luck_of_any(*arguments)[0], 3.6e-4 * factor),
    )
    storage = tmp_path / "journal"
    asked = ["search", str(model), *SCORER, "--storage", str(storage), "--average-gflops", "0.001"]
    assert main([*asked, "--scope", scope]) == 2
    line = capsys.readouterr().err
    assert f"answered with the cost {3.6e-4 * factor:g}, and --average-gflops is in GFLOPs" in line
    assert f"(scope {scope})" in line and "--average-cost" in line and line.count("\n") == 1
    assert b'"is_start"' not in storage.read_bytes() and not (model / "thresholds.json").exists()


def test_a_limit_in_the_scorers_own_unit_is_kept_and_named(capsys, model, tmp_path):
    asked = (model, "--trials", 12, "--storage", tmp_path / "journal")
    found = search(capsys, *asked, "--average-cost", 7.5)
    assert (found["average_cost"], found["average_gflops"]) == (7.5, None)
    assert found["scope"] == "scorer" and found["keeps_budget"] is True
    assert found["start"]["cost"] > 7.5 >= found["best"]["cost"]
    assert main(["search", *map(str, asked), *SCORER, "--average-cost", "7.5"]) == 0
    assert "budget:   7.5 in the unit of the scorer's costs" in capsys.readouterr().out
    # A study of one unit is none of the other's.
    assert main(["search", *map(str, asked), *SCORER, "--average-gflops", "7.5"]) == 2
    assert "its scope is scorer, and llm is asked for" in capsys.readouterr().err


def test_a_limit_in_a_scorers_unit_needs_a_scorer(capsys, model):
    assert main(["search", str(model), "--average-cost", "7.5"]) == 2
    assert "there is none" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "{}/journal"])
def test_two_workers_share_a_study_and_come_to_the_same(capsys, model, tmp_path, storage):
    arguments = (model, "--trials", 16, "--storage", storage.format(tmp_path))
    workers = [start_process(tmp_path, *arguments, *SCORER, "--json") for _ in range(2)]
    answers = [worker.communicate(timeout=240) for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], answers
    lines = [err.count("trial ") for _, err in answers]
    # Each may have been at a trial when the other one finished the last.
    assert 15 <= sum(lines) <= 17
    last = max((json.loads(out) for out, _ in answers), key=lambda found: found["trials"])
    assert 16 <= last["trials"] <= 17 and last["taken"] == "best trial"
    assert search(capsys, *arguments) == last, "there is nothing left to do"
    assert json.loads((model / "thresholds.json").read_text())["thresholds"] == last["thresholds"]


@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGKILL, -9, marks=pytest.mark.long)],
)
def test_a_search_that_is_ended_in_a_trial_leaves_nothing_half_and_goes_on(
    model, tmp_path, how, code
):
    (tmp_path / "slow_scorer.py").write_text(SLOW_SCORER)
    before = sorted(model.iterdir())
    arguments = (model, "--scorer", "slow_scorer:score", "--sampler", "tpe", "--trials", 8,
                 "--storage", tmp_path / "journal", "--json")
    process = start_process(tmp_path, *arguments)
    wait_for(tmp_path / "called_3", process)
    process.send_signal(how)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code and out == "" and "Traceback" not in err
    assert how == signal.SIGKILL or "interrupted after 2 of 8 trials; the same command" in err
    assert sorted(model.iterdir()) == before

    (tmp_path / "go_on").touch()
    process = start_process(tmp_path, *arguments)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert json.loads(out)["trials"] == 8 and err.count("trial ") == 6
    assert DeerPolicy.from_pretrained(model).thresholds[:2] == tuple(
        json.loads(out)["thresholds"][:2])


@pytest.mark.parametrize(("arguments", "complaint"), [
    (("--average-gflops", "nan"), "average_gflops is nan"),
    (("--average-gflops", "-1"), "average_gflops is -1.0"),
    (("--average-gflops", "1e-9"), "a step of this model costs at least"),
    (("--average-cost", "nan"), "--average-cost is nan"),
    (("--average-cost", "inf"), "--average-cost is inf"),
    (("--average-cost", "0"), "--average-cost is 0.0"),
    (("--average-cost", "8", "--average-gflops", "8"), "give the one that the scorer answers in"),
    (("--trials", "0"), "--trials is 0"),
    (("--episodes", "0"), "--episodes is 0"),
    (("--held-out", "0"), "--held-out is 0"),
    (("--seed", "-1"), "--seed is -1"),
    (("--seed", "4294967296"), "--seed is 4294967296; it must be 0 to 2147483648"),
    (("--trials", "1" + "0" * 12), "--trials is 1000000000000; it must be 1 to 100000"),
    (("--episodes", "1" + "0" * 12), "--episodes is 1000000000000"),
    (("--held-out", "1" + "0" * 12), "--held-out is 1000000000000"),
    (("--span", "1"), "span is 1.0"),
    (("--span", "1e300"), "span is 1e+300"),
    (("--span", "nan"), "span is nan"),
    (("--start", "0.1,soon"), "--start is '0.1,soon'"),
    (("--start", "nan,0.1,1"), "NaN is not allowed"),
    (("--start", "0.1"), "1 thresholds were given"),
    (("--max-layer", "1"), "max_layer is 1"),
    (("--max-layer", "2"), "no thresholds to search"),
    (("--tasks", "drawer-open"), "do not go with --scorer"),
    (("--scorer", "nothing"), "package.module:function"),
    (("--calibration", "no.safetensors"), "no.safetensors"),
    (("--out", "/proc/thresholds.json"), "nothing can be written to /proc"),
    (("--out", "/no/such/folder/t.json"), "nothing can be written to /no/such/folder"),
    (("--out", "/tmp"), "is a folder"),
    (("--storage", "/no/such/folder/journal"), "cannot be used"),
])
def test_what_cannot_be_searched_is_said_in_one_line_before_any_episode(
    capsys, monkeypatch, model, arguments, complaint
):
    monkeypatch.setattr(synthetic_scorer, "score", lambda *_: pytest.fail("was run"))
    assert main(["search", str(model), *SCORER, *arguments]) == 2
    streams = capsys.readouterr()
    assert complaint in streams.err and streams.err.count("\n") == 1 and streams.out == ""
    assert not (model / "thresholds.json").exists()


def test_a_model_directory_that_cannot_be_written_to_is_told_before_the_search(
    capsys, monkeypatch, model
):
    monkeypatch.setattr(synthetic_scorer, "score", lambda *_: pytest.fail("was run"))

    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    # Who runs tests as root may write everywhere.
    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    assert main(["search", str(model), *SCORER]) == 2
    assert f"nothing can be written to {model} (Permission denied)" in capsys.readouterr().err


def test_a_storage_of_another_model_is_refused(capsys, model, tmp_path):
    storage = ("--storage", f"{tmp_path}/journal", "--trials", 2)
    search(capsys, model, *storage)
    other = write_tiny_model(tmp_path / "other", seed=1)
    assert main(["search", str(other), *SCORER, *map(str, storage)]) == 2
    assert "its model's fingerprint is" in capsys.readouterr().err
    assert not (other / "thresholds.json").exists()


# The file that a model then runs by


@pytest.fixture(scope="module")
def searched(original, tmp_path_factory) -> Path:
    folder = Path(shutil.copytree(original, tmp_path_factory.mktemp("searched") / "tiny"))
    assert main(["search", str(folder), *SCORER, "--trials", "2"]) == 0
    return folder


def test_other_weights_refuse_the_file(capsys, searched, tmp_path):
    other = write_tiny_model(tmp_path / "other", seed=1)
    shutil.copy(searched / "thresholds.json", other)
    with pytest.raises(ValueError, match="was searched for other weights .*Delete it"):
        DeerPolicy.from_pretrained(other)
    assert main(["info", str(other)]) == 2
    assert "thresholds.json was searched for other weights" in capsys.readouterr().err


@pytest.mark.parametrize(("change", "complaint"), [
    ({"thresholds": [0.1, 0.2]}, "2 thresholds for 3 exits"),
    ({"thresholds": [0.1, float("nan"), 1e8]}, "must be finite"),
    ({"thresholds": [0.1, "soon", 1e8]}, "could not convert"),
    ({"thresholds": None}, "not iterable"),
    ({"metric": "manhattan"}, "manhattan"),
    ({"exit_layers": [1, 3, 6]}, r"exits after layers \[1, 3, 6\]"),
    ({"thresholds": [0.1, 10**400, 1e8]}, "too large"),
    ({"exit_layers": [2, float("inf"), 6]}, "infinity"),
    ({"fingerprint": None}, "fingerprint is None; it must be text"),
    ({"made": "by hand"}, "made is 'by hand'; it must be an object"),
    ({"version": 2}, "version is 2"),
    ({"more": 1}, "more"),
])
def test_a_file_that_is_wrong_is_refused_by_name(searched, tmp_path, change, complaint):
    copy = Path(shutil.copytree(searched, tmp_path / "copy"))
    values = json.loads((copy / "thresholds.json").read_text())
    (copy / "thresholds.json").write_text(json.dumps({**values, **change}))
    with pytest.raises(ValueError, match=f"thresholds.json .*{complaint}"):
        DeerPolicy.from_pretrained(copy)


def test_a_link_that_leads_nowhere_does_not_make_a_model_run_by_others(searched, tmp_path):
    copy = Path(shutil.copytree(searched, tmp_path / "copy"))
    (copy / "thresholds.json").unlink()
    (copy / "thresholds.json").symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="thresholds.json"):
        DeerPolicy.from_pretrained(copy)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{}", "{", "\x00", pytest.param("[" * 10**5, id="nested too deep")],
)
def test_a_file_that_is_no_record_is_refused_by_name(searched, tmp_path, content):
    copy = Path(shutil.copytree(searched, tmp_path / "copy"))
    (copy / "thresholds.json").write_text(content)
    with pytest.raises(ValueError, match="thresholds.json holds no thresholds"):
        DeerPolicy.from_pretrained(copy)


# In the simulator


def test_a_short_search_in_the_simulator(capsys, tmp_path):
    pytest.importorskip("deer_ros.evaluation.metaworld")
    model = write_tiny_model(tmp_path / "tiny", max_episode_steps=3)
    asked = ["search", str(model), "--tasks", "drawer-open,drawer-close", "--episodes", "1",
             "--held-out", "1", "--trials", "3", "--json", "--scope", "step"]
    assert main(asked) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["scorer"] == "metaworld:drawer-open,drawer-close" and found["trials"] == 3
    assert found["start"]["success"] == 0 and found["start"]["cost"] > 0
    assert len(found["thresholds"]) == 3
    assert DeerPolicy.from_pretrained(model).thresholds[:2] == tuple(found["thresholds"][:2])


@pytest.mark.parametrize(("arguments", "complaint"), [
    (("--tasks", "juggle"), "juggle"),
    (("--tasks", ""), "there is no task ''"),
    (("--average-gflops", "1e-9"), "costs at least"),
])
def test_what_the_simulator_cannot_do_is_said_in_one_line(capsys, model, arguments, complaint):
    pytest.importorskip("deer_ros.evaluation.metaworld")
    assert main(["search", str(model), *arguments]) == 2
    assert complaint in capsys.readouterr().err
