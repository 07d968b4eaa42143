"""Whole runs on a few made-up episodes of a tiny model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_model import tiny_config

from deer_ros.data.episode import Episode
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.training.config import PolicyPhase, TrainingConfig, VisionPhase
from deer_ros.training.run import TrainingRun

STEPS = 8


def made_up_episodes(count: int = 6, steps: int = STEPS) -> list[Episode]:
    """A bright square moves over the picture; the action says which way it will go."""
    episodes = []
    for number in range(count):
        rng = np.random.default_rng(number)
        pictures = np.zeros((steps, 32, 32, 3), np.uint8)
        actions = np.zeros((steps, 7), np.float32)
        positions = np.zeros((steps, 2), np.float32)
        position = rng.integers(4, 20, size=2)
        for step in range(steps):
            y, x = positions[step] = position
            pictures[step, int(y) : int(y) + 8, int(x) : int(x) + 8] = 255
            move = np.where(position > 12, -1, 1)
            actions[step, :2] = 0.5 * move
            actions[step, 6] = 1 if x > 12 else -1
            position = position + move
        episodes.append(
            Episode(
                instruction=["open the drawer", "close the drawer"][number % 2],
                static=pictures,
                gripper=pictures[:, ::-1].copy(),
                stamps_ns=np.arange(steps, dtype=np.int64) * 50_000_000,
                actions=actions,
                state=positions,
            )
        )
    return episodes


def config(
    vision_steps: int = 4,
    policy_steps: int = 6,
    head_steps: int = 2,
    log_every_steps: int = 1,
    **policy,
) -> TrainingConfig:
    return TrainingConfig(
        model=tiny_config(),
        vision=VisionPhase(steps=vision_steps, batch_frames=24, warmup_steps=2, shift_px=1),
        policy=PolicyPhase(
            **{"steps": policy_steps, "head_steps": head_steps, "batch_windows": 2, "window": 4,
               "warmup_steps": 2, "constant_exit_weight": 0.5, **policy}
        ),
        holdout=0.2,
        checkpoint_every_steps=2 * log_every_steps,
        log_every_steps=log_every_steps,
    )


class Recorder:
    """Hears of every step; stops the run, as a kill would, at one of them."""

    def __init__(self, stop_at: tuple[str, int] | None = None) -> None:
        self.lines: dict[tuple[str, int], dict[str, float]] = {}
        self.stop_at = stop_at

    def __call__(self, phase, step, steps, losses) -> None:
        self.lines[phase, step] = losses
        if (phase, step) == self.stop_at:
            raise KeyboardInterrupt


def test_a_killed_run_goes_on_with_the_losses_of_one_that_was_not(tmp_path):
    whole = Recorder()
    TrainingRun(config(), made_up_episodes(), tmp_path / "whole", whole)()
    resumed: dict = {}
    for stop in (("vision", 3), ("policy", 3), ("heads", 1), None):
        recorder = Recorder(stop)
        try:
            TrainingRun(config(), made_up_episodes(), tmp_path / "killed", recorder)()
        except KeyboardInterrupt:
            pass
        resumed.update(recorder.lines)
    assert resumed == whole.lines


def test_a_run_leaves_a_model_directory_that_the_policy_runs(tmp_path):
    folder = TrainingRun(config(), made_up_episodes(), tmp_path, Recorder())()
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    episode = made_up_episodes(1)[0]
    step = policy.step(Observation(episode.static[0], episode.gripper[0]), episode.instruction)
    assert np.isfinite(step.action).all()
    assert "auxiliary" not in json.dumps(list(policy.model.state_dict()))


def test_a_tiny_run_learns_to_replay_its_episodes_at_every_exit(tmp_path):
    recorder = Recorder()
    setting = config(200, 250, 0, 125, learning_rate=3e-3, head_learning_rate=3e-3, batch_windows=8)
    folder = TrainingRun(setting, made_up_episodes(4), tmp_path, recorder)()
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    for exit_layer in policy.config.exit_layers:
        errors = []
        for episode in made_up_episodes(2):  # both are among the ones trained on
            policy.reset()
            for static, gripper, action in zip(episode.static, episode.gripper, episode.actions):
                step = policy.step(Observation(static, gripper), episode.instruction, exit_layer)
                errors.append(np.abs(step.action[:2] - action[:2]).mean())
        # Always answering zero would be wrong by 0.5.
        assert np.mean(errors) < 0.2, exit_layer


def test_the_head_phase_leaves_the_layers_as_they_were(tmp_path):
    first = TrainingRun(config(head_steps=0), made_up_episodes(), tmp_path / "joint", Recorder())
    second = TrainingRun(config(head_steps=4), made_up_episodes(), tmp_path / "both", Recorder())
    first(), second()
    ours, theirs = first.model.state_dict(), second.model.state_dict()
    for name in ours:
        same = bool((ours[name] == theirs[name]).all())
        assert same != name.startswith("head."), name


def test_what_follows_the_end_of_a_short_episode_is_not_learned(tmp_path):
    short = TrainingRun(config(), made_up_episodes(steps=3), tmp_path, Recorder())
    short()
    batch = short._batches(short._look(), short.training).draw(np.random.default_rng(0), 16)
    assert batch.valid.shape == (16, 4)
    assert batch.valid.sum(dim=1).tolist() == [3] * 16


def test_an_episode_without_actions_is_named(tmp_path):
    episode = made_up_episodes(1)[0]
    blind = Episode(episode.instruction, episode.static, episode.gripper, episode.stamps_ns,
                    source="kitchen.mcap")
    with pytest.raises(ValueError, match=r"kitchen\.mcap has no actions"):
        TrainingRun(config(), [blind, blind], tmp_path, Recorder())


def test_an_unknown_key_of_the_configuration_names_file_and_key(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("policy: {stepz: 3}\n")
    with pytest.raises(ValueError, match=r"run\.yaml.*policy\.stepz.*steps"):
        TrainingConfig.load(file)
