"""The gate learns what it is for, last of all, and nothing else changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from made_up_runs import Recorder, config, made_up_episodes
from safetensors.torch import load_file
from tiny_model import tiny_config

from deer_ros.model.deer import DeerModel
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.training.config import GatePhase
from deer_ros.training.gate_phase import GateTraining
from deer_ros.training.run import TrainingRun

HEAD = dataclasses.replace(tiny_config().head, gate_width=16)


def run(folder: Path, steps: int, stop_at=None, policy_steps=6) -> tuple[Path, Recorder]:
    heard = Recorder(stop_at)
    asked = dataclasses.replace(
        config(policy_steps=policy_steps),
        model=tiny_config(head=HEAD),
        gate=GatePhase(steps=steps, batch_windows=8, learning_rate=1e-2, warmup_steps=1),
    )
    return TrainingRun(asked, made_up_episodes(), folder, heard)(), heard


def test_only_the_gate_learns_in_its_phase(tmp_path):
    before = load_file(run(tmp_path / "a", steps=0)[0] / "model.safetensors")
    after = load_file(run(tmp_path / "b", steps=3)[0] / "model.safetensors")
    differ = {name for name in before if not torch.equal(before[name], after[name])}
    assert differ and all(name.startswith("head.gate.") for name in differ)


def test_dropout_is_the_gates_alone(tmp_path):
    head = dataclasses.replace(HEAD, gate_dropout=0.5, mlp_dropout=0.5)
    training = GateTraining(DeerModel(tiny_config(head=head))).train()
    dropping = {name for name, part in training.named_modules()
                if isinstance(part, torch.nn.Dropout) and part.training}
    assert dropping == {"model.head.gate.dropout"}
    assert not training.eval().model.head.gate.dropout.training


@pytest.mark.long
def test_the_guesses_come_near_the_distances_to_full_depth(tmp_path):
    """Nearer than one number for all could."""
    folder, heard = run(tmp_path, steps=300)
    losses = [line["validation_gate"] for (phase, _), line in heard.lines.items()
              if phase == "gate"]
    assert min(losses[-10:]) < 0.5 * losses[0]
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    guesses, distances = [], []
    for episode in made_up_episodes():
        policy.reset()
        for seen in map(Observation, episode.static, episode.gripper):
            policy.rule = dataclasses.replace(policy.rule, metric="learned")
            said = policy.explain(seen, episode.instruction)
            errors = np.sqrt(np.mean((said.actions - said.actions[-1]) ** 2, axis=1))
            guesses.append(said.deltas[:-1])
            distances.append(errors[:-1])
            policy.step(seen, episode.instruction)
    guesses, distances = np.ravel(guesses), np.ravel(distances)
    assert np.mean((guesses - distances) ** 2) < np.var(distances)


@pytest.mark.long
def test_a_killed_gate_phase_goes_on_as_if_it_had_not_been(tmp_path):
    _, whole = run(tmp_path / "whole", steps=6)
    try:
        run(tmp_path / "killed", steps=6, stop_at=("gate", 3))
    except KeyboardInterrupt:
        pass
    _, resumed = run(tmp_path / "killed", steps=6)
    for step in (4, 5, 6):
        assert resumed.lines["gate", step]["total"] == whole.lines["gate", step]["total"]
