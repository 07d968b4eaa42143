"""The shared head learns along exits as the model's cadence takes them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_model import tiny_config

from deer_ros.model.config import ExitConfig
from deer_ros.model.deer import DeerModel
from deer_ros.training.config import PolicyPhase
from deer_ros.training.policy_phase import MultiExitTraining

WINDOWS, STEPS = 2, 7


def training(weight: float = 0.5, **exits) -> MultiExitTraining:
    torch.manual_seed(0)
    model = DeerModel(tiny_config(exits=ExitConfig(**exits)))
    phase = PolicyPhase(auxiliary_weight=0.0, constant_exit_weight=weight)
    return MultiExitTraining(model, phase).eval()


def answers_of(training: MultiExitTraining) -> list[tuple[str, float, torch.Tensor]]:
    width, exits = training.model.config.language.width, len(training.model.config.exit_layers)
    features = torch.randn(exits, WINDOWS, STEPS, width, generator=torch.manual_seed(1))
    found = training.answers(features, [])
    heard = [(kind, weight, output.pose) for kind, weight, output in found]
    return features, heard


@pytest.mark.parametrize(("steps", "most", "deeper"), [(2, 2, [1, 2]), (3, 5, [2])])
def test_exits_that_the_cadence_leaves_between_decisions_are_learned_as_it_takes_them(
    steps, most, deeper
):
    """Tiny exits are after layers 2, 4 and 6."""
    run = training(steps_per_decision=steps, max_layer_between=most)
    features, found = answers_of(run)
    decided = [(weight, pose) for kind, weight, pose in found if kind == "decided"]
    assert [kind for kind, *_ in found] == ["constant"] * 3 + ["decided"] * len(deeper)
    for number, (weight, pose) in zip(deeper, decided):
        between = min(number, most // 2 - 1)
        taken = [number if step % steps == 0 else between for step in range(STEPS)]
        path = torch.stack([features[exit_, :, step] for step, exit_ in enumerate(taken)], 1)
        assert weight == 0.5
        torch.testing.assert_close(pose, run.model.head(path).pose)


@pytest.mark.parametrize("exits", [{}, {"max_layer_between": 2}, {"steps_per_decision": 2}])
def test_where_every_step_may_go_as_deep_nothing_is_learned_twice(exits):
    _, found = answers_of(training(**exits))
    assert [kind for kind, *_ in found] == ["constant"] * 3


def test_losses_are_named_by_the_layer_that_is_decided_for():
    run = training(steps_per_decision=2, max_layer_between=4)
    features, _ = answers_of(run)
    actions, sampling = torch.zeros(WINDOWS, STEPS, 7), np.zeros((WINDOWS, STEPS), np.int64)
    names = run.losses(features, actions, [sampling]).keys()
    assert {name.rsplit("_", 1)[0] for name in names} == {
        "shared_1", "constant_2", "constant_4", "constant_6", "decided_6"}
    without = training(0.0, steps_per_decision=2, max_layer_between=2)
    assert [kind for kind, *_ in without.answers(features, [sampling])] == ["shared"]
