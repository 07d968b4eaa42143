"""Numbers of a training configuration that cannot be are refused before anything is done."""

from __future__ import annotations

import dataclasses

import pytest
from tiny_model import tiny_config

from deer_ros.model.config import HeadConfig
from deer_ros.resources import share
from deer_ros.training.config import TrainingConfig
from deer_ros.training.limits import RULES

GATES = {guess: HeadConfig(gate_width=8, gate_guesses=guess) for guess in ("distance", "success")}


@pytest.mark.parametrize("change", [
    "log_every_steps=0", "checkpoint_every_steps=0", "seed=-1", "holdout=-1", "holdout=1",
    "vision.shift_px=-1", "vision.batch_frames=0", "policy.shift_px=[1, -1]", "policy.window=0",
    "policy.steps=-1", "policy.warmup_steps=-3", "policy.learning_rate=-1",
    "policy.learning_rate=.inf", "policy.gradient_clip=0", "policy.auxiliary_weight=-1",
    "language.batch_sentences=0", "gate.weight_decay=-1", "practice.batch_answers=0",
    "evaluation.episodes=0",
])
def test_a_number_that_cannot_be_is_named_with_what_is_allowed(tmp_path, change):
    key = change.partition("=")[0]
    with pytest.raises(ValueError, match=rf"run\.yaml: {key} is .*; it must be [a-z]"):
        load(tmp_path, change)


@pytest.mark.parametrize("change", [
    "holdout=0", "policy.gradient_clip=.inf", "policy.gates=0", "policy.learning_rate=1e-4",
])
def test_what_has_a_meaning_is_allowed(tmp_path, change):
    load(tmp_path, change)


@pytest.mark.parametrize(
    "file", sorted(share("config", "train").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_configurations_that_come_with_the_package_can_be_loaded(file):
    # Fine-tuning is told the model on the command line.
    changes = ("start_from=MODEL",) if file.stem == "finetune" else ()
    assert TrainingConfig.load(file, changes).policy.steps > 0


def test_every_number_has_a_rule():
    def numbers(part) -> set[str]:
        names = {f.name for f in dataclasses.fields(part) if f.type in ("int", "float")}
        nested = [getattr(part, f.name) for f in dataclasses.fields(part) if f.name != "model"]
        return names.union(*(numbers(value) for value in nested if dataclasses.is_dataclass(value)))

    assert numbers(TrainingConfig()) <= RULES.keys()


@pytest.mark.parametrize(("change", "head", "refused"), [
    ("policy.batch_windows=1", None, True),
    ("vision.batch_frames=1", None, True),
    ("language.batch_sentences=1", None, False),
    ("gate.batch_windows=1", None, False),
    ("gate.batch_windows=1", "distance", True),
    ("gate.batch_windows=1", "success", False),
    ("practice.batch_answers=1", "success", True),
    ("practice.batch_answers=1", "distance", False),
])
def test_processes_must_be_able_to_share_the_batches_of_phases_that_run(
    tmp_path, change, head, refused
):
    asked = load(tmp_path, change)
    model = tiny_config(head=GATES[head]) if head else tiny_config()
    asked.check_batches(model, 1)
    if not refused:
        asked.check_batches(model, 2)
        return
    key = change.partition("=")[0]
    with pytest.raises(ValueError, match=f"{key} is 1; 2 processes share a batch"):
        asked.check_batches(model, 2)


def test_a_model_that_is_started_from_needs_no_batches_of_phases_that_are_not_its_own(tmp_path):
    asked = load(tmp_path, "vision.batch_frames=1", "start_from=somewhere")
    asked.check_batches(tiny_config(), 2)


def load(folder, *changes: str) -> TrainingConfig:
    file = folder / "run.yaml"
    file.write_text("")
    return TrainingConfig.load(file, changes)
