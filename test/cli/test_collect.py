from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny_model

from deer_ros.checkpoint.fingerprint import weights_fingerprint
from deer_ros.cli.main import main
from deer_ros.data.bags import read_episodes
from deer_ros.model.config import ProprioceptionConfig
from deer_ros.report.locks import LOCK, locked
from deer_ros.sim.collection import SimulatorUnits

SMALL = ["--height", "32", "--width", "32"]


def collect(out: Path, *options: str) -> int:
    return main(["collect", "--out", str(out), *SMALL, *options])


@pytest.fixture(scope="module")
def collected(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("demos") / "new" / "folder"
    assert collect(out, "--tasks", "reach,drawer-close", "--episodes", "2") == 0
    return out


def test_collecting_makes_bags_and_a_manifest(collected):
    assert sorted(path.name for path in collected.iterdir()) == [
        LOCK, "drawer-close-000", "manifest.json", "reach-000",
    ]
    content = json.loads((collected / "manifest.json").read_text())
    episodes = list(read_episodes(collected, SimulatorUnits()))
    assert content["episodes"] == len(episodes) == 4
    assert content["frames"] == sum(map(len, episodes))
    assert {episode.instruction for episode in episodes} == {
        content["tasks"][task]["instruction"] for task in ("reach", "drawer-close")
    }


def test_collecting_again_keeps_what_is_there_and_prints_the_manifest(collected, capsys):
    before = {path: path.stat().st_mtime_ns for path in collected.glob("*/*")}
    assert collect(collected, "--tasks", "reach", "--episodes", "2", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((collected / "manifest.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in collected.glob("*/*")} == before


def test_two_processes_do_not_collect_into_one_folder(collected, capsys):
    before = sorted(path.name for path in collected.iterdir())
    with locked(collected, "collects"):
        assert collect(collected, "--tasks", "push", "--episodes", "1") == 2
    assert f"another process collects in {collected}" in capsys.readouterr().err
    assert sorted(path.name for path in collected.iterdir()) == before


def test_other_settings_do_not_mix_with_what_is_there(collected, capsys):
    before = sorted(path.name for path in collected.iterdir())
    assert collect(collected, "--tasks", "push", "--episodes", "1", "--noise", "0.1") == 2
    message = capsys.readouterr().err
    assert message.startswith("deer collect: ") and message.count("\n") == 1
    assert "--noise 0.25" in message and "--noise 0.1" in message
    assert sorted(path.name for path in collected.iterdir()) == before


def test_a_policy_leads_and_another_one_does_not_mix_with_it(tmp_path, capfd):
    led, plain = tmp_path / "led", tmp_path / "plain"
    for name, seed in (("one", 0), ("other", 1)):
        write_tiny_model(tmp_path / name, seed=seed, max_episode_steps=6)
    options = ["--tasks", "reach", "--episodes", "2"]
    assert collect(led, *options, "--policy", str(tmp_path / "one")) == 0
    assert "Traceback" not in capfd.readouterr().err
    settings = json.loads((led / "manifest.json").read_text())["settings"]
    assert settings["policy"] == weights_fingerprint(tmp_path / "one")
    # It wanders before the expert goes straight: another way than the expert's own.
    assert collect(plain, *options, "--noise", "0") == 0
    first = next(read_episodes(led, SimulatorUnits()))
    alone = next(read_episodes(plain, SimulatorUnits()))
    assert first.instruction == alone.instruction
    np.testing.assert_array_equal(first.state[0], alone.state[0])
    assert not np.allclose(first.state[1], alone.state[1], atol=1e-3)
    capfd.readouterr()
    copy = tmp_path / "copy"
    shutil.copytree(tmp_path / "one", copy)
    config = json.loads((copy / "config.json").read_text())
    config["action"]["executions_per_step"] = 2
    (copy / "config.json").write_text(json.dumps(config))
    for policy, said in (
        (["--policy", str(tmp_path / "other")], "--policy "), ([], "no --policy"),
        (["--policy", str(copy)], " of configuration "),
    ):  # fmt: skip
        assert collect(led, *options, *policy) == 2
        message = capfd.readouterr().err
        assert message.count("\n") == 1 and said in message.split("now asked is")[1]


def test_a_policy_that_reads_what_this_robot_does_not_know_is_told_in_a_sentence(tmp_path, capfd):
    sensed = ProprioceptionConfig(("joint.elbow",), (0.0,), (1.0,))
    model = write_tiny_model(tmp_path / "model", proprioception=sensed)
    out = tmp_path / "out"
    assert collect(out, "--tasks", "reach", "--episodes", "1", "--policy", str(model)) == 2
    message = capfd.readouterr().err
    assert message.count("\n") == 1 and "joint.elbow" in message
    assert [path.name for path in out.iterdir()] == [LOCK]


def test_more_episodes_and_a_damaged_bag_are_recorded_and_the_rest_kept(tmp_path, capfd):
    assert collect(tmp_path, "--tasks", "reach,drawer-close", "--episodes", "1") == 0
    file = tmp_path / "reach-000" / "reach-000.mcap"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    left = tmp_path / ".reach-000.unfinished-1"
    left.mkdir()
    (left / "half").write_bytes(b"x")
    os.utime(left, (0, 0))
    kept = (tmp_path / "drawer-close-000" / "metadata.yaml").stat().st_mtime_ns
    capfd.readouterr()
    assert collect(tmp_path, "--tasks", "reach,drawer-close", "--episodes", "1") == 0
    assert "reach-000: it is damaged" in capfd.readouterr().err
    assert file.read_bytes() == whole
    assert (tmp_path / "drawer-close-000" / "metadata.yaml").stat().st_mtime_ns == kept
    assert not list(tmp_path.glob("*unfinished*"))


@pytest.mark.parametrize(
    "options, sentence",
    [
        (["--tasks", "reach,fly"], "there is no task 'fly'"),
        (["--episodes", "0"], "at least 1"),
        (["--processes", "-1"], "whole number"),
        (["--noise", "nan"], "from 0 to 1"),
        (["--seed", "x"], "whole number"),
        (["--policy", "nowhere"], "there is no model directory nowhere"),
        (["--height", "5"], "picture height is 5; it must be from 16 to 2048"),
    ],
)
def test_wrong_options_are_answered_with_one_line(tmp_path, capsys, options, sentence):
    out = tmp_path / "out"
    try:
        code = main(["collect", "--out", str(out), *options])
    except SystemExit as error:
        code = error.code
    message = capsys.readouterr().err
    assert code == 2 and sentence in message and message.count("\n") == 1
    assert not out.exists()


def wait_until(condition, deadline_s: float = 240.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "the condition never came true"
        time.sleep(0.02)


# A terminal's Ctrl-C goes to the whole group, `kill` and its like to the command alone.
# From SIGKILL no command hears: its processes see themselves that it is gone.
@pytest.mark.parametrize(("send", "number", "code"), [
    (os.killpg, signal.SIGINT, 130),
    pytest.param(os.kill, signal.SIGTERM, 130, marks=pytest.mark.long),
    (os.kill, signal.SIGKILL, -signal.SIGKILL),
])
def test_an_interrupted_run_leaves_no_half_written_bag_and_no_process(
    tmp_path, send, number, code
):
    process = subprocess.Popen(
        [sys.executable, "-m", "deer_ros.cli", "collect", "--out", str(tmp_path), *SMALL,
         "--tasks", "reach", "--episodes", "400", "--processes", "2"],
        stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    # Nothing below waits for ever: at the worst the processes are killed and the test fails.
    guard = threading.Timer(300, os.killpg, (process.pid, signal.SIGKILL))
    guard.start()
    try:
        wait_until(lambda: len(list(tmp_path.glob("*.unfinished-*/*/*.mcap"))) == 2)
        send(process.pid, number)
        # The end of the pipe comes when the last process that holds it is gone.
        errors = process.stderr.read()
        assert process.wait() == code
        assert guard.is_alive(), "a process lived on"
    finally:
        guard.cancel()
    assert "Traceback" not in errors
    # It did not wait for the bags that it was at, and left nothing of them.
    assert list(tmp_path.iterdir()) == [tmp_path / LOCK]
