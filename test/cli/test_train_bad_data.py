"""What no policy can learn from is named, and refused or left out as --skip-bad says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from episodes import Units, make_episode
from tiny_model import tiny_config

from deer_ros.cli.main import main
from deer_ros.data.bag_format import GRIPPER_TOPIC
from deer_ros.data.bags import EpisodeBagWriter
from deer_ros.model.config import DeerConfig
from deer_ros.model.schema import to_dict


def write(folder: Path, *episodes) -> None:
    with EpisodeBagWriter(folder, Units(), joint_names=("one", "two")) as writer:
        for episode in episodes:
            writer.write(episode)


def nothing(folder: Path) -> None:
    write(folder)


def damaged(folder: Path) -> None:
    write(folder, make_episode(6))
    (file,) = folder.glob("*.mcap")
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 3])


def no_actions(folder: Path) -> None:
    write(folder, make_episode(6, actions=None))


def nan_action(folder: Path) -> None:
    episode = make_episode(6)
    episode.actions[3, 2] = np.nan
    write(folder, episode)


def growing_pictures(folder: Path) -> None:
    episode = make_episode(6)
    pictures = [np.zeros((16 + 8 * (t > 2), 24, 3), np.uint8) for t in range(6)]
    object.__setattr__(episode, "gripper", pictures)
    write(folder, episode)


def one_camera(folder: Path) -> None:
    """As a recording that forgot a topic."""
    class Half(EpisodeBagWriter):
        def _put(self, topic, stamp_ns, message):
            if topic != GRIPPER_TOPIC:
                super()._put(topic, stamp_ns, message)

    with Half(folder, Units(), joint_names=("one", "two")) as writer:
        writer.write(make_episode(6))


def too_short(folder: Path) -> None:
    write(folder, make_episode(3))


def too_many_words(folder: Path) -> None:
    write(folder, make_episode(6, instruction="open the drawer " * 10))


def a_models_own_token(folder: Path) -> None:
    write(folder, make_episode(6, instruction="open the <image> drawer"))


BAD = {
    nothing: "lacks|holds no picture",
    damaged: "damaged",
    no_actions: "has no actions",
    nan_action: "actions of frame 3 holds NaN",
    growing_pictures: "several sizes",
    one_camera: "lacks /camera/gripper",
    too_short: "has 3 steps; a window has 4",
    too_many_words: "makes 33 tokens; this model takes 32",
    a_models_own_token: "holds one of the model's own tokens",
}


@pytest.fixture
def demos(tmp_path):
    folder = tmp_path / "demos"
    write(folder / "a-good", *(make_episode(6, seed) for seed in range(3)))
    return folder


@pytest.fixture
def train(tmp_path, demos):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({
        "model": to_dict(tiny_config()),
        "vision": {"steps": 1, "batch_frames": 4},
        "policy": {"steps": 1, "batch_windows": 2, "window": 4, "pad_short_episodes": False},
    }))
    out = tmp_path / "run"
    return lambda *more: main(["train", str(file), "--data", str(demos), "--out", str(out), *more])


@pytest.mark.parametrize("spoil", BAD, ids=lambda spoil: spoil.__name__)
def test_bad_data_is_named_and_refused_and_nothing_stays(spoil, demos, train, tmp_path, capsys):
    spoil(demos / "b-bad")
    assert train() == 2
    said = capsys.readouterr().err.strip()
    assert "b-bad" in said and re.search(BAD[spoil], said) and "\n" not in said, said
    left = {path.name for path in (tmp_path / "run").rglob("*")}
    assert left <= {".lock"}
    # Once it is away, the very same run begins.
    assert train("--skip-bad") == 0
    said = capsys.readouterr().err
    skipped = [line for line in said.splitlines() if line.startswith("skipped: ")]
    assert len(skipped) == 1 and "b-bad" in skipped[0] and re.search(BAD[spoil], skipped[0]), said
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_good_episodes_of_a_bag_with_a_bad_one_are_kept(demos, train, tmp_path, capsys):
    bad = make_episode(6, 7)
    bad.actions[0, 0] = np.inf
    write(demos / "b-mixed", make_episode(6, 8), bad, make_episode(6, 9))
    assert train("--skip-bad") == 0
    assert "b-mixed: episode 1 cannot be used" in capsys.readouterr().err
    assert len(np.load(tmp_path / "run" / "frames" / "starts.npy")) == 1 + 3 + 2


def test_several_processes_are_not_started_for_what_one_refuses(demos, tmp_path):
    nan_action(demos / "b-bad")
    (tmp_path / "run.yaml").write_text("policy: {steps: 1}")
    command = [sys.executable, "-m", "deer_ros.cli", "train", "run.yaml", "--data", "demos"]
    refused = subprocess.run(
        [*command, "--out", "run", "--processes", "2", "--cpu"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
    assert "b-bad" in refused.stderr


def test_where_all_is_bad_there_is_nothing_to_train_on(demos, train, tmp_path, capsys):
    shutil.rmtree(demos / "a-good")
    no_actions(demos / "b-bad")
    assert train("--skip-bad") == 2
    assert capsys.readouterr().err.strip().endswith("there are no episodes to train on.")
    assert not (tmp_path / "run" / "frames").exists()


def test_a_new_model_takes_as_many_tokens_as_its_configuration_says(
    demos, train, tmp_path, capsys
):
    too_many_words(demos / "b-long")
    assert train("--set", "model.prompt.max_tokens=33") == 0
    assert DeerConfig.load(tmp_path / "run" / "model" / "config.json").prompt.max_tokens == 33
