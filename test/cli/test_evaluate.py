"""`deer evaluate` on the simulated robot; CALVIN is in test/evaluation."""

from __future__ import annotations

import json

import pytest
from tiny_model import write_tiny_model

from deer_ros.cli.main import main

TASK = "drawer-open"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny", max_episode_steps=3)


def test_every_setting_runs_every_task_and_seed(folder, capsys):
    pytest.importorskip("metaworld")
    asked = ["evaluate", str(folder), "--tasks", TASK, "--episodes", "2", "--exits", "2"]
    assert main([*asked, "--json"]) == 0
    rollouts = json.loads(capsys.readouterr().out)
    assert [r["setting"] for r in rollouts] == [
        name for name in ("own thresholds", "exit 2", "full depth") for _ in range(2)
    ]
    assert len({r["seed"] for r in rollouts}) == 2
    for rollout in rollouts:
        assert rollout["task"] == TASK and rollout["success"] is False
        assert rollout["steps"] == rollout["periods"] == 3
        assert rollout["mean_step_gflops"] > rollout["mean_llm_gflops"] > 0
    depths = {r["setting"]: r["mean_exit_layer"] for r in rollouts}
    assert depths["exit 2"] == 2 and depths["full depth"] == 6
    assert main(asked) == 0
    assert "whole-step MFLOPs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--tasks", "juggle"), "juggle"),
        (("--episodes", "0"), "--episodes must be at least 1"),
        (("--processes", "0"), "--processes is 0"),
        (("--exits", "3"), "--exits has 3; the exits are after layers"),
        (("--preset", "nonsense"), "there is no preset 'nonsense'"),
    ],
)
def test_what_cannot_be_evaluated_is_said_in_one_line(folder, capsys, arguments, complaint):
    assert main(["evaluate", str(folder), *arguments]) == 2
    said = capsys.readouterr().err
    assert complaint in said and said.count("\n") == 1


def test_an_unknown_environment_is_refused(folder, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", str(folder), "--env", "libero"])
    assert ended.value.code == 2
    assert "metaworld" in capsys.readouterr().err
