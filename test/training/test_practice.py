"""A gate that guesses success learns from outcomes, last of all, and nothing else changes."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_runs import Recorder, config, made_up_episodes
from safetensors.torch import load_file
from tiny_model import tiny_config

from deer_ros.data.outcomes import Outcomes
from deer_ros.model.action_head import SuccessGate
from deer_ros.policy import DeerPolicy
from deer_ros.training.config import PracticePhase
from deer_ros.training.practice_phase import OutcomeBatches, PracticeTraining, split
from deer_ros.training.run import TrainingRun

HEAD = dataclasses.replace(tiny_config().head, gate_width=16, gate_guesses="success")
EXITS = np.array([2, 4])


def made_up_outcomes(seed: int = 0, count: int = 4000) -> Outcomes:
    """What is read tells the chances: its first value how much is lost, its second what is spoiled.

    Leaving after layer 2 spoils up to 0.8, after layer 4 nothing.
    """
    rng = np.random.default_rng(seed)
    read = rng.uniform(-1, 1, (count, HEAD.lstm_width)).astype(np.float32)
    layers = rng.choice(EXITS, count)
    at_full_depth = rng.random(count) < 0.3
    fails = 1 - (1 - lost(read)) * np.where(at_full_depth, 1, 1 - spoiled(read, layers))
    return Outcomes(
        read, rng.uniform(-1, 1, (count, 6)).astype(np.float32), layers, at_full_depth,
        rng.random(count) < fails, np.arange(count) // 4,
    )


def lost(read: np.ndarray) -> np.ndarray:
    return np.where(read[:, 0] > 0.5, 0.9, 0.05)


def spoiled(read: np.ndarray, layers: np.ndarray) -> np.ndarray:
    return np.where((layers == 2) & (read[:, 1] > 0), 0.8, 0.0)


class Simulator:
    """Gives outcomes at once, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, model: Path, folder: Path, on_block) -> Outcomes:
        assert DeerPolicy.from_pretrained(model, device="cpu").config.head == HEAD
        self.asked += 1
        on_block(1, 1)
        return made_up_outcomes(count=200)


def run(folder: Path, steps: int, stop_at=None) -> tuple[Path, Recorder]:
    heard = Recorder(stop_at)
    asked = dataclasses.replace(
        config(),
        model=tiny_config(head=HEAD),
        practice=PracticePhase(steps=steps, batch_answers=32, warmup_steps=1),
    )
    return TrainingRun(
        asked, made_up_episodes(), folder, heard, practise=Simulator()
    )(), heard


def test_the_guess_comes_near_what_leaving_early_costs():
    torch.manual_seed(0)
    gate = SuccessGate(HEAD, layers=6)
    training = PracticeTraining(gate)
    optimizer = torch.optim.AdamW(gate.parameters(), lr=3e-3, weight_decay=0.05)
    batches = OutcomeBatches(made_up_outcomes())
    for step in range(1500):
        optimizer.zero_grad()
        training(*batches.draw(np.random.default_rng(step), 256))["practice"].backward()
        optimizer.step()
    unseen = made_up_outcomes(seed=1)
    with torch.no_grad():
        scores = gate.scores(*map(torch.from_numpy, (unseen.read, unseen.poses, unseen.layers)))
        both = scores.sigmoid().numpy()
    guesses = (1 - both[:, 0]) * both[:, 1]
    true = (1 - lost(unseen.read)) * spoiled(unseen.read, unseen.layers)
    costly = true > 0.5
    assert np.abs(guesses - true).mean() < 0.1
    assert guesses[costly].mean() > 0.55
    hopeless = (lost(unseen.read) > 0.5) & (spoiled(unseen.read, unseen.layers) > 0.5)
    assert guesses[hopeless].mean() < 0.2, "where all is lost, leaving early costs nothing"
    assert guesses[unseen.layers == 4].mean() < 0.05


def test_exits_begin_alike_and_weight_decay_does_not_make_them_so_again():
    """Drawn at random, what each began with took longer to unlearn than there were steps."""
    torch.manual_seed(0)
    gate = SuccessGate(dataclasses.replace(HEAD, gate_width=128), tiny_config().language.layers)
    read, poses = torch.randn(5, HEAD.lstm_width), torch.randn(5, 6)
    guesses = [gate.scores(read, poses, layer) for layer in (1, 2, 6)]
    torch.testing.assert_close(guesses[0], guesses[1])
    torch.testing.assert_close(guesses[0], guesses[2])
    assert [parameter is gate.hidden.weight for parameter in gate.decayed] == [True]


def test_the_loss_is_the_likelihood_of_the_outcomes():
    gate = SuccessGate(HEAD, layers=6).double()
    outcomes = made_up_outcomes(count=50)
    names = ("read", "poses", "layers", "at_full_depth", "failed")
    parts = (getattr(outcomes, name) for name in names)
    drawn = [v.double() if v.is_floating_point() else v for v in map(torch.from_numpy, parts)]
    found = PracticeTraining(gate)(*drawn, 0.5)["practice"].item()
    lose, spoil = gate.scores(*drawn[:3]).sigmoid().detach().numpy().T
    fails = 1 - (1 - lose) * np.where(outcomes.at_full_depth, 1, 1 - spoil)
    likelihood = np.where(outcomes.failed, fails, 1 - fails)
    assert found == pytest.approx(-0.5 * np.log(likelihood).mean(), rel=1e-9)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch_and_its_loss(world):
    training = PracticeTraining(SuccessGate(HEAD, layers=6))
    outcomes = made_up_outcomes(count=100)
    def loss(rank: int, world: int) -> float:
        drawn = OutcomeBatches(outcomes, rank, world).draw(np.random.default_rng(3), 32)
        return training(*drawn)["practice"].item()
    assert np.mean([loss(rank, world) for rank in range(world)]) == pytest.approx(loss(0, 1))


def test_a_long_episode_counts_as_much_as_a_short_one():
    episodes = np.repeat([0, 1, 2], [50, 5, 1])
    parts = vars(made_up_outcomes(count=len(episodes)))
    outcomes = Outcomes(**{**parts, "episodes": episodes, "layers": episodes + 1})
    drawn = OutcomeBatches(outcomes).draw(np.random.default_rng(0), 3000)[2]
    assert np.bincount(drawn.numpy()).tolist()[1:] == pytest.approx([1000] * 3, abs=100)


def test_no_episode_is_learned_from_and_validated_on():
    outcomes = made_up_outcomes(count=400)
    learned, held = split(outcomes, 0.1, seed=0)
    assert len(np.unique(held.episodes)) == 10
    assert not set(learned.episodes) & set(held.episodes)
    assert len(learned) + len(held) == len(outcomes)


def test_only_the_gate_learns_in_its_phase(tmp_path):
    before = load_file(run(tmp_path / "a", steps=0)[0] / "model.safetensors")
    after = load_file(run(tmp_path / "b", steps=3)[0] / "model.safetensors")
    differ = {name for name in before if not torch.equal(before[name], after[name])}
    assert differ and all(name.startswith("head.gate.") for name in differ)


@pytest.mark.long
def test_a_killed_phase_goes_on_as_if_it_had_not_been(tmp_path):
    _, whole = run(tmp_path / "whole", steps=6)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", steps=6, stop_at=("practice", 3))
    _, resumed = run(tmp_path / "killed", steps=6)
    for step in (3, 4, 5, 6):
        assert resumed.lines["practice", step]["total"] == whole.lines["practice", step]["total"]


def test_without_a_simulator_it_is_refused_before_anything_is_trained(tmp_path):
    asked = dataclasses.replace(config(), model=tiny_config(head=HEAD))
    with pytest.raises(ValueError, match="practice.steps to 0"):
        TrainingRun(asked, made_up_episodes(), tmp_path, Recorder())


def test_outcomes_are_read_as_they_were_written(tmp_path):
    outcomes = made_up_outcomes(count=20)
    outcomes.save(tmp_path / "some.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["some.npz"]
    read = Outcomes.load(tmp_path / "some.npz")
    for name, values in vars(outcomes).items():
        np.testing.assert_array_equal(getattr(read, name), values)
        assert getattr(read, name).dtype == values.dtype


@pytest.mark.parametrize("kept", [0, 0.5])
def test_cut_outcomes_of_practice_are_named(tmp_path, kept):
    file = tmp_path / "block.npz"
    made_up_outcomes(count=20).save(file)
    data = file.read_bytes()
    file.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ValueError, match=f"{re.escape(str(file))} cannot be read .*; delete it"):
        Outcomes.load(file)


def test_episodes_of_several_parts_stay_apart():
    parts = [made_up_outcomes(seed, count=20) for seed in range(3)]
    nothing = parts[0].of(np.zeros(20, bool))
    joined = Outcomes.joined([parts[0], nothing, *parts[1:]])
    np.testing.assert_array_equal(joined.episodes, np.arange(60) // 4)


@pytest.mark.parametrize("count", [0, 1])
def test_too_little_practice_is_refused_in_a_sentence(count):
    outcomes = made_up_outcomes(count=100)
    few = outcomes.of(outcomes.episodes < count)
    with pytest.raises(ValueError, match=rf"in {count} episodes.*Raise practice\.episodes"):
        split(few, 0.1, seed=0)
