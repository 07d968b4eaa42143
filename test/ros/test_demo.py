from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_model import tiny_config, write_tiny_model

from deer_ros.model.config import ExitConfig
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.sim.robot import SimulatedRobot

STEPS = 20
# For what takes seconds, and for whole episodes, on a machine with time to spare.
WAIT_S, RUN_S = 120.0, 300.0


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"), max_episode_steps=STEPS)


class Demo:
    """The demo in a process of its own, and a look at its children."""

    def __init__(self, out: Path, *arguments: str):
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-m", "deer_ros.nodes", "demo", "--out", str(out), *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_exception) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(WAIT_S)

    def children(self) -> dict[str, int]:
        """Process ids by name of the node."""
        found = {}
        for pid in self._child_pids():
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            found |= {name: pid for name in ("policy_node", "sim_node") if name in words}
        return found

    def wait_until_running(self) -> dict[str, int]:
        """The children, once the simulator is ready."""
        deadline_s = time.monotonic() + WAIT_S
        log = self.out / "sim_node.log"
        while not (log.exists() and "ready" in log.read_text() and len(self.children()) == 2):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        return self.children()

    def _child_pids(self) -> list[int]:
        pid = self.process.pid
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def exits_without_ros(model: Path, thresholds: tuple[float, ...], task: str,
                      seed: int) -> list[int]:
    """The exit layer of every step of the same episode, run in this process."""
    policy = DeerPolicy.from_pretrained(model)
    policy.set_thresholds(thresholds, steps_per_decision=None, max_layer_between=None)
    robot = SimulatedRobot()
    robot.reset(task, seed)
    exits = []
    while not robot.success and robot.steps < STEPS:
        step = policy.step(Observation(*robot.pictures()), robot.instruction)
        exits.append(step.exit_layer)
        for _ in range(policy.config.action.executions_per_step):
            if not robot.success and robot.steps < STEPS:
                robot.step(step.action, step.gripper)
    robot.close()
    return exits


def is_running(pid: int) -> bool:
    """A process that has ended is none, though nobody has asked for its exit code yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_gone(pids: list[int]) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline_s, "still running"
        time.sleep(0.05)


def test_a_demo_in_lockstep_is_the_policy_and_the_simulator_without_ros(tmp_path, model):
    with Demo(tmp_path / "out", "--model", str(model), "--episodes", "3",
              "--tasks", "drawer-open", "drawer-close", "--thresholds", "0.105", "0.1", "inf",
              ) as demo:
        table, progress = demo.process.communicate(timeout=RUN_S)
    assert demo.process.returncode == 0, progress
    assert "drawer-close" in table and "/3" in table and "all" in table
    assert [line.split()[0] for line in progress.splitlines()] == ["1/3", "2/3", "3/3"]

    results = json.loads((demo.out / "results.json").read_text())
    assert [(e["task"], e["seed"]) for e in results["episodes"]] == [
        ("drawer-open", 1_000_000), ("drawer-open", 1_000_001), ("drawer-close", 1_000_000)]
    exit_layers = [episode["per_step"]["exit_layer"] for episode in results["episodes"]]
    assert exit_layers == [
        exits_without_ros(model, (0.105, 0.1, math.inf), episode["task"], episode["seed"])
        for episode in results["episodes"]]
    assert {layer for episode in exit_layers for layer in episode} == {2, 6}
    for episode in results["episodes"]:
        assert all(ms > 0 for ms in episode["per_step"]["model_ms"])
        assert set(episode["per_step"]["latency_ms"]) == {None}
    total = results["summary"][-1]
    assert total["episodes"] == 3
    assert total["mean_exit_layer"] == pytest.approx(np.concatenate(exit_layers).mean())
    assert 0 < total["llm_gflops"] < total["step_gflops"]

    sheet = cv2.imread(str(demo.out / "contact_sheet.png"))
    assert sheet.shape[0] > 3 * 100 and sheet.std() > 20


@pytest.mark.long
def test_an_action_that_is_carried_out_thrice_is_so_in_lockstep_too(tmp_path):
    action = dataclasses.replace(tiny_config().action, executions_per_step=3)
    model = write_tiny_model(tmp_path / "model", action=action, max_episode_steps=STEPS)
    with Demo(tmp_path / "out", "--model", str(model), "--episodes", "2", "--tasks", "drawer-close",
              "--thresholds", "0.105", "0.1", "inf") as demo:
        _, said = demo.process.communicate(timeout=RUN_S)
    assert demo.process.returncode == 0, said
    for episode in json.loads((demo.out / "results.json").read_text())["episodes"]:
        exits = exits_without_ros(model, (0.105, 0.1, math.inf), episode["task"], episode["seed"])
        assert episode["per_step"]["exit_layer"] == exits
        assert len(exits) == math.ceil(STEPS / 3)


@pytest.mark.long
def test_the_bundled_model_does_what_it_is_told_and_exits_early(tmp_path):
    with Demo(tmp_path / "out", "--episodes", "2", "--tasks", "drawer-open", "faucet-close",
              "--min-success", "0.5", "--json") as demo:
        answer, said = demo.process.communicate(timeout=RUN_S)
    assert demo.process.returncode == 0, said
    results = json.loads(answer)
    total = results["summary"][-1]
    assert total["successes"] >= 1
    assert total["mean_exit_layer"] < results["settings"]["layers"]


def test_a_demo_with_a_broken_model_says_what_the_node_said(tmp_path, model):
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "model.safetensors").write_bytes(b"no weights")
    with Demo(tmp_path / "out", "--model", str(broken)) as demo:
        _, said = demo.process.communicate(timeout=WAIT_S)
    assert demo.process.returncode == 1
    assert "the policy could not configure" in said and "model.safetensors" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("wanted", [signal.SIGINT, signal.SIGHUP])
def test_an_interrupted_demo_leaves_no_process_behind(tmp_path, model, wanted):
    with Demo(tmp_path / "out", "--model", str(model)) as demo:
        children = demo.wait_until_running()
        demo.process.send_signal(wanted)
        _, said = demo.process.communicate(timeout=WAIT_S)
    assert demo.process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert not any(map(is_running, children.values()))


def test_a_demo_that_is_killed_leaves_no_process_behind(tmp_path, model):
    with Demo(tmp_path / "out", "--model", str(model)) as demo:
        children = demo.wait_until_running()
        demo.process.kill()
        demo.process.communicate(timeout=WAIT_S)
    wait_until_gone(list(children.values()))


def test_a_demo_whose_policy_dies_says_so_and_ends_the_simulator(tmp_path, model):
    with Demo(tmp_path / "out", "--model", str(model)) as demo:
        children = demo.wait_until_running()
        os.kill(children["policy_node"], signal.SIGKILL)
        _, said = demo.process.communicate(timeout=WAIT_S)
    assert demo.process.returncode == 1
    assert "policy_node ended with exit code -9" in said and "Traceback" not in said
    assert not any(map(is_running, children.values()))


@pytest.mark.long
def test_a_demo_that_reaches_too_little_fails(tmp_path):
    """At full depth, which is every step's, also of a model that decides at some steps only."""
    exits = ExitConfig(steps_per_decision=2, max_layer_between=2)
    model = write_tiny_model(tmp_path / "model", max_episode_steps=STEPS, exits=exits)
    with Demo(tmp_path / "out", "--model", str(model), "--episodes", "1", "--tasks", "pick-place",
              "--min-success", "1", "--json", "--full-depth", "--real-time") as demo:
        answer, said = demo.process.communicate(timeout=RUN_S)
    assert demo.process.returncode == 1 and "below --min-success" in said, said
    episode = json.loads(answer)["episodes"][0]
    assert set(episode["per_step"]["exit_layer"]) == {6}
    # On the wall clock a step can be late, but never early.
    assert all(ms > 0 for ms in episode["per_step"]["latency_ms"])
