"""A new model that takes its vision part from one that can see already."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from made_up_runs import Recorder, config, made_up_episodes
from tiny_model import tiny_config, write_tiny_model

from deer_ros.checkpoint import load_model
from deer_ros.training.config import TrainingConfig, VisionPhase
from deer_ros.training.run import TrainingRun


def asked(start, **changes) -> TrainingConfig:
    return dataclasses.replace(config(), vision=VisionPhase(start_from=str(start)), **changes)


def test_it_sees_as_the_other_does_and_learns_all_else_anew(tmp_path):
    start = write_tiny_model(tmp_path / "model", seed=3)
    heard = Recorder()
    made = TrainingRun(asked(start), made_up_episodes(), tmp_path / "run", heard)()
    assert "vision" not in {phase for phase, _ in heard.lines}
    was, now = load_model(start), load_model(made)
    assert now.preprocessor == was.preprocessor
    before, after = was.model.state_dict(), now.model.state_dict()
    sees = [name for name in after if name.startswith(("tower.", "resampler."))]
    assert sees and all(torch.equal(before[name], after[name]) for name in sees)
    learned = [name for name in after if ".block." in name and after[name].ndim == 2]
    assert learned and not any(torch.equal(before[name], after[name]) for name in learned)


def test_no_simulators_state_is_needed_then(tmp_path):
    start = write_tiny_model(tmp_path / "model")
    blind = [dataclasses.replace(episode, state=None) for episode in made_up_episodes()]
    with pytest.raises(ValueError, match="no simulator state that varies"):
        TrainingRun(config(), blind, tmp_path / "refused", Recorder())
    TrainingRun(asked(start), blind, tmp_path / "run", Recorder())


def test_a_vision_part_of_another_make_is_refused_before_data_is_read(tmp_path):
    start = write_tiny_model(tmp_path / "model")
    wider = tiny_config(resampler=dataclasses.replace(tiny_config().resampler, mlp_ratio=3))
    with pytest.raises(ValueError, match=r"whose resampler is .*; model\.resampler is"):
        TrainingRun(asked(start, model=wider), iter([]), tmp_path / "run", Recorder())
    assert not (tmp_path / "run" / "frames").exists()


def test_a_model_that_is_started_from_brings_its_own():
    with pytest.raises(ValueError, match=r"vision\.start_from is a, and start_from b"):
        TrainingConfig(vision=VisionPhase(start_from="a"), start_from="b")
