"""Steps that decide, steps in between, and what both cost on average."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_config

from deer_ros.budget.cadence import Cadence
from deer_ros.model.config import ExitConfig

EXITS = (2, 4, 6)
OWN = {"steps_per_decision": 3, "max_layer_between": 5}


def config(**exits):
    return tiny_config().replace(exits=ExitConfig(**exits))


def test_what_is_not_given_is_the_models_own_and_layers_are_rounded_down_to_an_exit():
    assert Cadence.of(config()) == Cadence(1, None)
    assert Cadence.of(config(**OWN)) == Cadence(3, 4)
    assert Cadence.of(config(**OWN), 2) == Cadence(2, 4)
    assert Cadence.of(config(**OWN), None, 2) == Cadence(3, 2)
    assert Cadence.of(config(**OWN), None, 0) == Cadence(3, None)
    for cadence in (Cadence(1, None), Cadence(3, 4)):
        assert Cadence.of(config(**OWN), **cadence.arguments) == cadence


def test_where_nothing_is_given_the_model_may_choose():
    assert Cadence.asked(config(**OWN)) is None
    assert Cadence.asked(config(**OWN), 1) == Cadence(1, 4)
    assert Cadence.asked(config(**OWN), None, 0) == Cadence(3, None)


@pytest.mark.parametrize(("arguments", "complaint"), [
    ((0,), "steps_per_decision is 0; it must be a whole number from 1"),
    ((1.5,), "steps_per_decision is 1.5; it must be a whole number from 1"),
    ((2, -1), "max_layer_between is -1; it must be a whole number from 0"),
    ((2, 2.5), "max_layer_between is 2.5; it must be a whole number from 0"),
    ((2, 1), "max_layer_between is 1; the first exit of this model is after layer 2"),
])  # fmt: skip
def test_what_is_no_cadence_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        Cadence.of(config(), *arguments)


@pytest.mark.parametrize("exits", [{"steps_per_decision": 0}, {"max_layer_between": 0}])
def test_a_configuration_with_no_cadence_is_refused(exits):
    (name,) = exits
    with pytest.raises(ValueError, match=f"exits.{name} is 0; it must be 1 to"):
        ExitConfig(**exits)


def test_a_configuration_that_lets_steps_in_between_answer_nowhere_is_refused():
    with pytest.raises(ValueError, match="exits.max_layer_between is 1; the first exit is after"):
        config(max_layer_between=1)


cadences = st.builds(Cadence, st.integers(1, 5), st.sampled_from([None, *EXITS]))


@given(cadence=cadences, decided=st.lists(st.sampled_from(EXITS), min_size=1, max_size=20),
       rising=st.lists(st.floats(0.1, 5), min_size=3, max_size=3))
def test_means_over_steps_are_those_of_steps_one_by_one(cadence, decided, rising):
    costs = np.cumsum(rising)
    taken = []
    for step in range(len(decided) * cadence.steps_per_decision):
        if cadence.decides(step):
            exit_layer = decided[step // cadence.steps_per_decision]
        else:
            exit_layer = cadence.between(exit_layer)
        taken.append(EXITS.index(exit_layer))
    numbers = [EXITS.index(layer) for layer in decided]
    mean = costs[taken].mean()
    assert cadence.per_step(costs, EXITS)[numbers].mean() == pytest.approx(mean)
    shares = np.bincount(numbers, minlength=3) / len(numbers)
    steps = cadence.shares_of_steps(shares, EXITS)
    np.testing.assert_allclose(steps, np.bincount(taken, minlength=3) / len(taken), atol=1e-12)
    assert steps @ costs == pytest.approx(mean)


def test_what_is_lost_is_averaged_step_by_step_and_with_fewer_exits_than_the_model_has():
    losses = np.array([[4.0, 8.0], [0.0, 2.0]])
    np.testing.assert_array_equal(Cadence(2, 2).per_step(losses, EXITS), [[4, 8], [2, 5]])
    np.testing.assert_array_equal(Cadence(2, 6).per_step(losses, EXITS), losses)
    assert dataclasses.replace(Cadence(2, 2), steps_per_decision=1).per_step(
        losses, EXITS).tolist() == losses.tolist()
