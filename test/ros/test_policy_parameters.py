"""What the policy node is given at start, and what of it is wrong."""

from __future__ import annotations

import dataclasses

import pytest
import rclpy
from graph import isolated_graph
from rclpy.parameter import Parameter
from tiny_model import tiny_config

from deer_ros.nodes.policy.parameters import NodeParameters
from deer_ros.stepping.settings import ROWS, default_thresholds

CONFIG = tiny_config()


@pytest.fixture(scope="module")
def graph():
    with isolated_graph() as graph:
        yield graph


@pytest.fixture
def started(graph):
    """Makes a node with these parameters, by name."""
    nodes = []

    def start(given: dict) -> tuple[rclpy.node.Node, NodeParameters]:
        node = rclpy.create_node(
            "deer", context=graph.node.context,
            parameter_overrides=[Parameter(name, value=value) for name, value in given.items()])
        nodes.append(node)
        return node, NodeParameters(node, lambda *_: None, lambda *_: None)

    yield start
    for node in nodes:
        node.destroy_node()


def is_set(node, **values) -> bool:
    return all(node.set_parameters_atomically([
        Parameter(name.replace("__", "."), value=value)]).successful
        for name, value in values.items())


@pytest.mark.parametrize("given, correction", [
    ({"dry_run": 1}, {"dry_run": True}),
    ({"dry_run": "true"}, {"dry_run": False}),
    ({"safety.max_linear_velocity": "0,03"}, {"safety__max_linear_velocity": 0.03}),
    ({"safety.recovery": "latch"}, {"safety__recovery": "latched"}),
    ({"safety.workspace_max": [0.7, 0.3]}, {"safety__workspace_max": [0.7, 0.3, 0.5]}),
    ({"safety.workspace_min": [0.5] * 3, "safety.workspace_max": [0.1] * 3},
     {"safety__workspace_min": [0.1] * 3, "safety__workspace_max": [0.5] * 3}),
    ({"action.linear_scale": -1.0}, {"action__linear_scale": 0.0}),
    ({"episode.max_duration": "long"}, {"episode__max_duration": 10}),
    ({"model_sha256": "0x12"}, {"model_sha256": ""}),
    ({"budget.preset": "turbo"}, {"budget__preset": "full"}),
])
def test_no_model_is_accepted_until_a_wrong_value_is_set_anew(started, given, correction):
    node, parameters = started(given)
    *_, name = given
    for _ in range(2):
        with pytest.raises(ValueError, match=f"at start is wrong: .*To be set anew: {name}\\."):
            parameters.check_model(CONFIG)
        parameters.forget_model()
    assert is_set(node, **correction)
    parameters.check_model(CONFIG)


def test_all_that_is_wrong_is_told_at_once(started):
    _, parameters = started({"dry_run": 3, "safety.recovery": "latch", "control_rate": 10})
    with pytest.raises(ValueError, match="dry_run is 3; .*safety.recovery is 'latch'; .*"
                                         "To be set anew: dry_run, safety.recovery"):
        parameters.check_model(CONFIG)


@pytest.mark.parametrize("name, meant", [
    ("safety.max_linear_velocty", "safety.max_linear_velocity"),
    ("safety.speed", "safety\\..*"), ("saftey.recovery", "safety.recovery"),
    ("dry_runn", "dry_run"), ("exit.threshold", "exit.thresholds"),
])
def test_a_misspelled_limit_is_not_taken_for_none(started, name, meant):
    _, parameters = started({name: 0.03})
    with pytest.raises(ValueError, match=f"{name} is no parameter .*alike is {meant}\\. .*again"):
        parameters.check_model(CONFIG)


def test_parameters_of_other_nodes_in_the_same_file_are_left_alone(started):
    _, parameters = started({
        "task": "push", "frame_id": "base", "mode": "fast", "lockstep": True, "folder": "bag",
        "image.png_level": 3, "camera_rate": 20.0, "max_episode_steps": 10, "file_duration": 1.0})
    parameters.check_model(CONFIG)


@pytest.mark.parametrize("name, value", [
    ("executor", "quick"), ("autostart", "no"), ("exit.thresholds", "none"),
    ("exit.thresholds", [0.1, 0.2]),
])
def test_of_thresholds_and_what_counts_only_at_start_the_default_is_used(started, name, value):
    node, parameters = started({name: value})
    parameters.check_model(CONFIG)
    default = ROWS[name].default or list(default_thresholds(CONFIG))
    assert node.get_parameter(name).value == default


def test_the_default_thresholds_are_those_of_the_model_that_is_loaded(started):
    node, parameters = started({"exit.policy": "fixed"})
    other = tiny_config(exits=dataclasses.replace(CONFIG.exits, thresholds=(0.3, 0.2, 0.1)))
    for config in (CONFIG, other, CONFIG):
        parameters.check_model(config)
        own = list(default_thresholds(config))
        assert node.get_parameter("exit.thresholds").value == own
        assert list(parameters.settings.exit_thresholds) == own
        parameters.forget_model()
    assert is_set(node, exit__thresholds=[0.5, 0.4, 0.3])
    parameters.check_model(other)
    assert parameters.settings.exit_thresholds == (0.5, 0.4, 0.3), "what somebody set stays"
