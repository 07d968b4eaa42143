"""Training goes on from a model directory of official files: what learns and what does not."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import golden_data
import numpy as np
import pytest
import torch
from made_up_runs import Recorder, made_up_episodes
from safetensors.torch import load_file
from tiny_model import write_tiny_model

from deer_ros.checkpoint import convert_official, load_model
from deer_ros.model.config import DeerConfig
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.training.config import PolicyPhase, TrainingConfig
from deer_ros.training.policy_phase import MultiExitTraining
from deer_ros.training.run import TrainingRun

WORDS = [t["instruction"] for t in golden_data.text("rollout")["tokens"]]


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("official") / "model"
    files = {
        name: golden_data.FOLDER / f"{name}.safetensors"
        for name in ("deer", "clip", "mpt", "openflamingo")
    }
    convert_official(folder, **files, config=golden_data.FOLDER / "config.json")
    return folder


def fine_tuned(official: Path, out: Path, **policy) -> Path:
    settings = {
        "steps": 1, "head_steps": 0, "batch_windows": 2, "window": 3, "warmup_steps": 1,
        "shift_px": (2, 1), "cosine": False,
    }  # fmt: skip
    config = TrainingConfig(start_from=str(official), policy=PolicyPhase(**settings | policy))
    episodes = made_up_episodes(4, instructions=WORDS[:2])
    return TrainingRun(config, episodes, out, Recorder())()


def changed(before: Path, after: Path) -> tuple[set[str], set[str]]:
    """Names of the tensors that differ, and of those that do not."""
    old = {name: t for file in before.glob("*.safetensors") for name, t in load_file(file).items()}
    new = load_file(after / "model.safetensors")
    assert old.keys() == new.keys()
    differ = {name for name in old if not torch.equal(old[name], new[name])}
    return differ, old.keys() - differ


def learns_in_the_original(name: str) -> bool:
    return name.startswith(("resampler.", "embedding.", "head.")) or ".cross_attention." in name


def test_a_joint_step_changes_just_what_the_original_trains(official, tmp_path):
    differ, same = changed(official, fine_tuned(official, tmp_path))
    assert all(map(learns_in_the_original, differ)), differ
    assert not any(map(learns_in_the_original, same)), same
    assert {name.split(".")[0] for name in same} == {"tower", "layers"}


def test_a_head_only_step_changes_the_head_alone(official, tmp_path):
    differ, same = changed(official, fine_tuned(official, tmp_path, steps=0, head_steps=1))
    assert {name.split(".")[0] for name in differ} == {"head"}
    assert not any(name.startswith("head.") for name in same)


def test_what_learns_can_be_chosen(official, tmp_path):
    differ, _ = changed(official, fine_tuned(official, tmp_path, trained=("tower", "blocks")))
    assert {name.split(".")[0] for name in differ} == {"tower", "layers", "head"}
    assert not any("cross_attention" in name for name in differ)


def test_the_saved_directory_keeps_all_that_goes_with_the_weights_and_runs(official, tmp_path):
    folder = fine_tuned(official, tmp_path)
    for name in ("config.json", "tokenizer.json", "preprocessor_config.json"):
        assert (folder / name).read_text() == (official / name).read_text()
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    episode = made_up_episodes(1)[0]
    step = policy.step(Observation(episode.static[0], episode.gripper[0]), WORDS[0])
    assert np.isfinite(step.action).all()


def test_thresholds_that_were_solved_for_other_weights_are_left_behind(official, tmp_path):
    solved = tmp_path / "solved"
    shutil.copytree(official, solved)
    config = DeerConfig.load(solved / "config.json")
    thresholds = (0.1,) * len(config.exit_layers)
    exits = dataclasses.replace(config.exits, thresholds=thresholds)
    config.replace(exits=exits).save(solved / "config.json")
    after = DeerConfig.load(fine_tuned(solved, tmp_path / "run") / "config.json")
    assert after == config.replace(exits=dataclasses.replace(exits, thresholds=None))


def test_a_model_may_move_a_robot_once_it_has_learned_from_one(tmp_path):
    start = write_tiny_model(tmp_path / "model")
    trained_in = [
        TrainingRun(
            TrainingConfig(start_from=str(start), trained_in=said),
            made_up_episodes(4, instructions=("open", "push")), tmp_path / f"{said}", Recorder(),
        ).start.model.config.trained_in
        for said in (None, "robot")
    ]  # fmt: skip
    assert trained_in == ["simulation", "robot"]


@pytest.mark.parametrize("values, complaint", [
    ({"start_from": "m", "trained_in": "reality"}, "'reality'; allowed are simulation and robot"),
    ({"trained_in": "robot"}, "there is no start_from; of a new model, set model.trained_in"),
])
def test_where_it_was_trained_is_said_of_what_it_goes_on_with(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        TrainingConfig(**values)


def test_words_that_the_model_takes_for_the_same_are_named(tmp_path):
    start = write_tiny_model(tmp_path / "model")
    said = ("open the Fridge", "open the drawer")
    run = TrainingRun(
        TrainingConfig(start_from=str(start)), made_up_episodes(4, instructions=said),
        tmp_path / "run", Recorder(),
    )  # fmt: skip
    assert run.unknown_words() == ["Fridge"]


def test_auxiliary_heads_start_as_copies_of_the_shared_one(official):
    model = load_model(official).model
    training = MultiExitTraining(model, PolicyPhase(), pretrained=True)
    assert len(training.auxiliary) == len(model.config.exit_layers)
    for head in training.auxiliary:
        for name, tensor in head.state_dict().items():
            assert torch.equal(tensor, model.head.state_dict()[name])
            assert tensor.data_ptr() != model.head.state_dict()[name].data_ptr()
    assert not MultiExitTraining(model, PolicyPhase(auxiliary_weight=0.0)).auxiliary


def test_a_directory_brings_its_own_configuration(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("start_from: somewhere\nmodel: {trained_in: robot}\n")
    with pytest.raises(ValueError, match=r"run\.yaml: it has both `model` and `start_from`"):
        TrainingConfig.load(file)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        TrainingRun(TrainingConfig(start_from="nowhere"), [], tmp_path / "out", Recorder())
