from __future__ import annotations

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tiny_model import tiny_config

from deer_ros.budget.cadence import Cadence
from deer_ros.exit_rule import ExitRule
from deer_ros.model.config import DeerConfig, ExitConfig

LAYERS = 6


def config(interval: int = 2) -> DeerConfig:
    return tiny_config(exits=ExitConfig(interval=interval))


thresholds = st.floats(allow_nan=False)


@given(interval=st.integers(1, LAYERS), max_layer=st.integers(1, 9), data=st.data())
def test_a_rule_has_a_threshold_for_every_exit_and_the_deepest_permitted_is_always_taken(
    interval, max_layer, data
):
    exits = config(interval).exit_layers
    assume(max_layer >= exits[0])
    permitted = sum(layer <= max_layer for layer in exits)
    count = data.draw(st.sampled_from([len(exits), permitted]))
    given_ = data.draw(st.lists(thresholds, min_size=count, max_size=count))
    rule = ExitRule.of(config(interval), LAYERS, given_, max_layer=max_layer)
    assert rule.exits == exits[:permitted]
    assert len(rule.thresholds) == len(exits)
    assert list(rule.thresholds[: permitted - 1]) == given_[: permitted - 1]
    assert all(t == math.inf for t in rule.thresholds[permitted - 1 :])


@given(interval=st.integers(1, LAYERS), data=st.data())
def test_the_layers_asked_are_those_that_could_be_taken_and_what_they_are_compared_with(
    interval, data
):
    exits = config(interval).exit_layers
    given_ = data.draw(st.lists(thresholds, min_size=len(exits), max_size=len(exits)))
    asked = ExitRule.of(config(interval), LAYERS, given_).layers(None, None)
    assert asked[-1] == exits[-1]
    assert list(asked) == sorted(set(asked))
    for index, layer in enumerate(exits[:-1]):
        reference = exits[index - 1] if index else layer - 1
        if given_[index] >= 0 and reference > 0:
            assert layer in asked and reference in asked
    useful = {exits[-1]}
    for index, layer in enumerate(exits[:-1]):
        if given_[index] >= 0:
            useful |= {layer, exits[index - 1] if index else layer - 1}
    assert set(asked) <= useful


def test_exits_that_can_never_be_taken_are_not_asked():
    rule = ExitRule.of(config(), LAYERS, [-1.0, -1.0, 0.0])
    assert rule.layers(None, None) == (6,)
    rule = ExitRule.of(config(), LAYERS, [-1.0, 0.1, 0.0])
    assert rule.layers(None, None) == (2, 4, 6)
    rule = ExitRule.of(config(), LAYERS, [0.1, -1.0, 0.0])
    assert rule.layers(None, None) == (1, 2, 6)


def test_an_exit_after_the_first_layer_is_taken_only_as_a_fixed_one():
    rule = ExitRule.of(config(1), LAYERS, [9.0, -1.0, -1.0, -1.0, -1.0, 0.0])
    assert rule.layers(None, None) == (6,)
    assert rule.layers(1, None) == (1,)


def test_a_kept_exit_and_a_fixed_one_are_asked_alone():
    rule = ExitRule.of(config(), LAYERS)
    assert rule.layers(None, 4) == (4,)
    assert rule.layers(2, 4) == (2,)


def test_steps_between_two_decisions_keep_the_exit_but_go_no_deeper_than_is_permitted():
    for cadence, held in ((Cadence(3), 6), (Cadence(3, 4), 4)):
        rule = ExitRule.of(config(), LAYERS, cadence=cadence)
        assert [rule.held(step, 6) for step in range(5)] == [None, held, held, None, held]
        assert [rule.held(step, 2) for step in range(2)] == [None, 2]
        assert rule.held(1, None) is None
        assert rule.at_depth(config(), 4).cadence == cadence


def test_the_cadence_is_the_models_own_unless_another_is_given():
    own = tiny_config(exits=ExitConfig(steps_per_decision=2, max_layer_between=3))
    assert ExitRule.of(own, LAYERS).cadence == Cadence(2, 2)
    assert ExitRule.of(own, LAYERS, cadence=Cadence()).cadence == Cadence()


def test_a_kept_exit_that_is_no_longer_permitted_is_decided_anew():
    rule = ExitRule.of(config(), LAYERS, [0.1, 0.1, 0.0], max_layer=4)
    assert rule.layers(None, 6) == (1, 2, 4)


def test_a_rule_for_fewer_built_layers_stops_at_the_deepest_of_them():
    assert ExitRule.of(config(), 4).exits == (2, 4)
    assert ExitRule.of(config(), 4, max_layer=6).exits == (2, 4)


def test_layers_that_come_later_are_left_by_the_models_own_thresholds_only_under_its_metric():
    for metric, second in (("l2", 0.01), ("cosine", -math.inf)):
        rule = ExitRule.of(tiny_config(), 4, [0.5, 9.0], metric)
        assert rule.thresholds[:2] == (0.5, math.inf)
        deeper = rule.at_depth(tiny_config(), LAYERS)
        assert deeper.metric == metric and deeper.thresholds == (0.5, second, math.inf)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"thresholds": [0.1]}, r"1 thresholds were given; give one per exit of the model \(3, "),
        ({"thresholds": []}, "0 thresholds were given"),
        ({"thresholds": [0.1] * 4}, "4 thresholds were given"),
        ({"thresholds": [0.1, math.nan, 1.0]}, "NaN is not allowed"),
        ({"thresholds": ["a", 0.1, 1.0]}, "they must be numbers"),
        ({"thresholds": 0.5}, "they must be numbers"),
        ({"metric": "L2"}, "metric is 'L2'; allowed are"),
        ({"max_layer": 1}, "max_layer is 1; the first exit of this model is after layer 2"),
        ({"max_layer": 0}, "max_layer is 0"),
        ({"max_layer": 4.5}, "max_layer is 4.5; it must be a whole number"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        ExitRule.of(config(), LAYERS, **arguments)


@pytest.mark.parametrize("layer", [1, 3, 7, 0, "4"])
def test_a_fixed_exit_that_is_none_is_refused(layer):
    with pytest.raises(ValueError, match=r"the permitted exits are after layers \[2, 4, 6\]"):
        ExitRule.of(config(), LAYERS).layers(layer, None)
