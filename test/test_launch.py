"""The launch file, on machines that have `launch`: a ROS 2 installation, not the wheels."""

from __future__ import annotations

import pytest
import yaml

from deer_ros.resources import share

WHY_NOT = "launch and launch_ros come with a ROS 2 installation; the wheels have neither"
launch = pytest.importorskip("launch", reason=WHY_NOT)
launch_ros = pytest.importorskip("launch_ros", reason=WHY_NOT)

from launch.launch_description_sources import (  # noqa: E402
    get_launch_description_from_python_launch_file,
)
from launch_ros.utilities import evaluate_parameters  # noqa: E402

DEFAULTS = {
    "model": "",
    "instruction": "",
    "device": "",
    "dry_run": "",
    "params_file": str(share("config", "deer.yaml")),
    "namespace": "",
    "use_sim_time": "false",
    "log_level": "info",
    "sim": "false",
    "task": "reach",
}


@pytest.fixture
def description():
    return get_launch_description_from_python_launch_file(str(share("launch", "deer.launch.py")))


def launched_nodes(description, **arguments) -> dict[str, launch_ros.actions.Node]:
    """The nodes that these launch arguments yield, by executable, ready to be started."""
    context = launch.LaunchContext()
    context.launch_configurations.update(arguments)
    nodes = {}
    for entity in description.entities:
        for action in entity.visit(context) or []:
            action._perform_substitutions(context)
            nodes[action.node_executable] = action
    return nodes


def parameters(node) -> dict:
    """What the node gets: files first, then single values, which count more."""
    context = launch.LaunchContext()
    values = {}
    for given in evaluate_parameters(context, node._Node__parameters):
        if not isinstance(given, dict):
            given = yaml.safe_load(given.read_text())["/**"]["ros__parameters"]
        values.update(given)
    return values


def test_the_arguments_and_their_defaults_are_the_documented_ones(description):
    context = launch.LaunchContext()
    declared = {
        argument.name: "".join(part.perform(context) for part in argument.default_value)
        for argument in description.get_launch_arguments()
    }
    assert declared == DEFAULTS
    assert all(argument.description for argument in description.get_launch_arguments())


def test_the_policy_node_starts_alone_with_the_parameter_file(description):
    nodes = launched_nodes(description)
    assert list(nodes) == ["policy_node"]
    node = nodes["policy_node"]
    assert node.node_name == "/deer"
    configured = yaml.safe_load(share("config", "deer.yaml").read_text())["/**"]["ros__parameters"]
    assert parameters(node) == {**configured, "use_sim_time": False}


def test_arguments_reach_the_policy_node_as_parameters_of_their_types(description):
    instruction = 'open: "the" drawer, 1'
    nodes = launched_nodes(
        description,
        model="/models/mine",
        instruction=instruction,
        device="cuda:1",
        dry_run="True",
        use_sim_time="true",
        namespace="left_arm",
    )
    given = parameters(nodes["policy_node"])
    expected = {
        "model": "/models/mine",
        "instruction": instruction,
        "device": "cuda:1",
        "dry_run": True,
        "use_sim_time": True,
    }
    assert {name: given[name] for name in expected} == expected
    assert nodes["policy_node"].node_name == "/left_arm/deer"


def test_a_text_that_looks_like_a_number_stays_a_text(description):
    given = parameters(launched_nodes(description, model="3", instruction="yes")["policy_node"])
    assert (given["model"], given["instruction"]) == ("3", "yes")


def test_sim_starts_the_simulated_robot_and_lets_the_bundled_model_drive_it(description):
    nodes = launched_nodes(description, sim="true", namespace="arm", task="push")
    assert sorted(nodes) == ["policy_node", "sim_node"]
    assert nodes["sim_node"].node_name == "/arm/simulated_robot"
    assert parameters(nodes["policy_node"])["allow_simulation_model"] is True
    assert parameters(nodes["sim_node"]) == {"lockstep": False, "task": "push"}


def test_under_simulated_time_the_simulated_robot_waits_for_every_action(description):
    nodes = launched_nodes(description, sim="true", use_sim_time="true")
    assert parameters(nodes["sim_node"])["lockstep"] is True


def test_the_real_robot_is_not_driven_by_a_model_from_simulation(description):
    assert parameters(launched_nodes(description)["policy_node"])["allow_simulation_model"] is False


@pytest.mark.parametrize("argument", ["dry_run", "use_sim_time", "sim", "log_level"])
def test_a_wrong_word_is_refused(description, argument):
    with pytest.raises(RuntimeError, match=f'"{argument}" provided value "maybe"'):
        launched_nodes(description, **{argument: "maybe"})
