"""`deer train` in processes of its own: killed for good and begun again, alone and as two."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from episodes import Units, make_episode
from tensorboardX.proto.event_pb2 import Event
from tiny_model import tiny_config

from deer_ros.data.bags import EpisodeBagWriter
from deer_ros.model.schema import to_dict
from deer_ros.report.json_lines import read_lines

STEPS = 36
KILL_AFTER = ("policy", 20)
PATIENCE_S = 240


@pytest.fixture(scope="module")
def setting(tmp_path_factory) -> tuple[Path, Path]:
    """Configuration and demonstrations."""
    folder = tmp_path_factory.mktemp("training")
    with EpisodeBagWriter(folder / "demos", Units(), joint_names=("one", "two")) as writer:
        for seed in range(5):
            # One is shorter than a window, so that not every window counts alike.
            writer.write(make_episode(frames=3 if seed == 0 else 6, seed=seed))
    (folder / "run.yaml").write_text(yaml.safe_dump({
        "model": to_dict(tiny_config()),
        "vision": {"steps": 4, "batch_frames": 5, "warmup_steps": 1, "shift_px": 2},
        "policy": {"steps": STEPS, "head_steps": 5, "batch_windows": 4,
                   "window": 4, "warmup_steps": 2},
        "holdout": 0.2, "log_every_steps": 1, "checkpoint_every_steps": 7,
    }))
    return folder / "run.yaml", folder / "demos"


def start(setting, out: Path, processes: int) -> subprocess.Popen:
    config, data = map(str, setting)
    command = [sys.executable, "-m", "deer_ros.cli", "train", config, "--data", data]
    command += ["--out", str(out), "--threads", "1", "--processes", str(processes)]
    # Two find out by themselves that there is no GPU.
    command += ["--cpu"] if processes == 1 else []
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )


def finish(process: subprocess.Popen) -> None:
    said, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, said


def kill(process: subprocess.Popen) -> None:
    """SIGKILL to it and all that it started, at once."""
    family = [*psutil.Process(process.pid).children(recursive=True), process]
    for member in family:
        os.kill(member.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE_S)
    psutil.wait_procs(family[:-1], timeout=PATIENCE_S)


def figures(out: Path) -> dict[tuple[str, int], dict[str, float]]:
    """What the log says after every step; one that was done again, since it came after the last
    checkpoint before a kill, must have said the same."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for line in read_lines(out / "log.jsonl"):
        key = line.pop("phase"), line.pop("step")
        assert found.setdefault(key, line) == line, key
    return found


def scalars(out: Path) -> dict[tuple[str, int], float]:
    """All whole records of the TensorBoard files: length, checksum, event, checksum."""
    found = {}
    for file in sorted((out / "tensorboard").glob("events.*")):
        data, at = file.read_bytes(), 0
        while at + 12 <= len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            at += length + 16
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


@pytest.fixture(scope="module")
def alone(setting, tmp_path_factory) -> dict:
    out = tmp_path_factory.mktemp("alone")
    finish(start(setting, out, 1))
    return figures(out)


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_has_the_losses_of_one_that_was_not(processes, setting, alone, tmp_path):
    out = tmp_path / "killed"
    process = start(setting, out, processes)
    deadline = time.monotonic() + PATIENCE_S
    while KILL_AFTER not in figures(out):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.02)
    kill(process)
    before = figures(out)
    assert max(step for phase, step in before if phase == "policy") < STEPS
    shown, last = scalars(out), 19  # the kill may have cut short what is said of the next
    assert shown["policy/loss/total", last] == pytest.approx(
        before["policy", last]["total"], rel=1e-6
    )
    assert {tag for tag, step in shown if step == last} >= {
        "policy/loss/shared_1_pose", "policy/loss/auxiliary_6_gripper", "policy/gradient_norm",
        "policy/learning_rate", "policy/validation/total",
    }

    # What a writer leaves that is killed in the middle of a line.
    with (out / "log.jsonl").open("a") as log:
        log.write('{"phase": "pol')
    finish(start(setting, out, processes))
    after = figures(out)
    assert (out / "model" / "model.safetensors").is_file()
    if processes == 1:
        assert after == alone
        return
    # How many processes share a batch changes its losses by rounding alone.
    assert after.keys() == alone.keys()
    for key, expected in alone.items():
        for name, value in expected.items():
            assert after[key][name] == pytest.approx(value, rel=2e-3, abs=1e-5), (key, name)
