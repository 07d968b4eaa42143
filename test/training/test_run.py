"""Whole runs on a few made-up episodes of a tiny model."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from made_up_runs import Recorder, config, made_up_episodes
from tiny_model import tiny_config

from deer_ros.data.episode import Episode
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.training.config import LanguagePhase, TrainingConfig
from deer_ros.training.policy_phase import MultiExitTraining
from deer_ros.training.run import TrainingRun
from deer_ros.training.windows import WindowBatches


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_killed_run_goes_on_with_the_losses_of_one_that_was_not(tmp_path, precision):
    whole, setting = Recorder(), config(precision=precision)
    TrainingRun(setting, made_up_episodes(), tmp_path / "whole", whole)()
    resumed: dict = {}
    for stop in (("vision", 3), ("policy", 3), ("heads", 1), None):
        recorder = Recorder(stop)
        try:
            TrainingRun(setting, made_up_episodes(), tmp_path / "killed", recorder)()
        except KeyboardInterrupt:
            pass
        resumed.update(recorder.lines)
    assert resumed == whole.lines


def test_a_run_in_bfloat16_learns_the_same_but_for_rounding_and_keeps_its_weights_in_float32(
    tmp_path,
):
    totals = {}
    for precision in ("float32", "bfloat16"):
        recorder = Recorder()
        run = TrainingRun(
            config(precision=precision), made_up_episodes(), tmp_path / precision, recorder
        )
        run()
        assert {p.dtype for p in run.model.parameters()} == {torch.float32}
        totals[precision] = [line["total"] for line in recorder.lines.values() if "total" in line]
    assert totals["bfloat16"] == pytest.approx(totals["float32"], rel=0.02)
    assert totals["bfloat16"] != totals["float32"]


def test_a_run_leaves_a_model_directory_that_the_policy_runs(tmp_path):
    folder = TrainingRun(config(), made_up_episodes(), tmp_path, Recorder())()
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    episode = made_up_episodes(1)[0]
    step = policy.step(Observation(episode.static[0], episode.gripper[0]), episode.instruction)
    assert np.isfinite(step.action).all()
    assert "auxiliary" not in json.dumps(list(policy.model.state_dict()))


@pytest.mark.parametrize("vision_steps", [pytest.param(200, marks=pytest.mark.long), 0])
def test_a_tiny_run_learns_to_replay_its_episodes_at_every_exit(tmp_path, vision_steps):
    """Without a vision phase, from what robots and datasets bring: no simulator's state."""
    recorder = Recorder()
    setting = config(
        vision_steps, 250, 0, 125, learning_rate=3e-3, head_learning_rate=3e-3, batch_windows=8)
    shown = made_up_episodes(4)
    if vision_steps == 0:
        shown = [dataclasses.replace(episode, state=None) for episode in shown]
    folder = TrainingRun(setting, shown, tmp_path, recorder)()
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


def test_no_two_steps_of_a_run_draw_alike(tmp_path, monkeypatch):
    """Of all phases: the second pass over the windows is another one."""
    drawn = []

    def draw(batches, rng, *_args):
        drawn.append(rng.bit_generator.state["state"]["state"])
        return original(batches, rng, *_args)

    original = WindowBatches.draw
    monkeypatch.setattr(WindowBatches, "draw", draw)
    TrainingRun(config(log_every_steps=100), made_up_episodes(), tmp_path, Recorder())()
    held = np.random.default_rng(0).bit_generator.state["state"]["state"]
    learned = [state for state in drawn if state != held]
    assert len(learned) == len(set(learned)) == 6 + 2


def test_demonstrations_without_a_state_are_refused_before_the_vision_phase(tmp_path):
    blind = [dataclasses.replace(episode, state=None) for episode in made_up_episodes()]
    with pytest.raises(ValueError, match=r"no simulator state.*vision\.steps to 0"):
        TrainingRun(config(), blind, tmp_path, Recorder())


def test_a_sentence_that_is_too_long_is_refused_before_the_vision_phase(tmp_path):
    setting = dataclasses.replace(config(), language=LanguagePhase(steps=1))
    said = [{"open the drawer": "open", "shut the drawer " * 10: "shut"}]
    with pytest.raises(ValueError, match="makes 33 tokens; this model takes 32"):
        TrainingRun(setting, made_up_episodes(), tmp_path, Recorder(), sentences=said)


def test_a_process_that_sees_nothing_of_the_first_ones_work_says_so(tmp_path, monkeypatch):
    """As on a machine that does not share the run's folder."""
    monkeypatch.setattr(Accelerator, "is_main_process", property(lambda _: False))
    with pytest.raises(ValueError, match="not on a file system that all machines share"):
        TrainingRun(config(), made_up_episodes(), tmp_path, Recorder())


def test_processes_do_not_go_on_from_different_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(Accelerator, "gather", lambda _, here: torch.cat([here, here + 40]))
    with pytest.raises(ValueError, match="find the checkpoint of step 40, others that of step 0"):
        TrainingRun(config(), made_up_episodes(), tmp_path, Recorder())()


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


def test_every_parameter_that_learns_is_used_as_several_processes_need_it(tmp_path):
    head = dataclasses.replace(tiny_config().head, layer_projections=True)
    setting = dataclasses.replace(config(), model=tiny_config(head=head))
    run = TrainingRun(setting, made_up_episodes(), tmp_path, Recorder())
    training = MultiExitTraining(run.model, setting.policy)
    learned, _ = run._windows(run._look(), 2)
    sum(training(*learned(np.random.default_rng(0))).values()).backward()
    groups = training.groups(setting.trained_parts)
    assert all(p.grad is not None for group in groups for p in group["params"])


@pytest.mark.parametrize(("every_steps", "is_there"), [(1, True), (2, False)])
def test_a_run_that_diverges_says_what_can_be_done_and_names_no_file_that_is_not_there(
    tmp_path, every_steps, is_there
):
    """It diverges at its second step."""
    fast = config(vision_steps=0, learning_rate=1e30, head_learning_rate=1e30, warmup_steps=0)
    fast = dataclasses.replace(fast, checkpoint_every_steps=every_steps)
    run = TrainingRun(fast, made_up_episodes(), tmp_path, Recorder())
    with pytest.raises(ArithmeticError, match="lower learning rate and another --out") as caught:
        run()
    file = tmp_path / "policy.pt"
    assert (str(file) in str(caught.value), file.exists()) == (is_there, is_there)


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
