"""The launch files, on machines that have `launch`: a ROS 2 installation, not the wheels."""

from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from camera_bag import write_camera_bag

from deer_ros.resources import share

WHY_NOT = "launch and launch_ros come with a ROS 2 installation; the wheels have neither"
launch = pytest.importorskip("launch", reason=WHY_NOT)
launch_ros = pytest.importorskip("launch_ros", reason=WHY_NOT)

from launch.events.process import ProcessExited  # noqa: E402
from launch.launch_description_sources import (  # noqa: E402
    get_launch_description_from_python_launch_file,
)
from launch_ros.event_handlers import OnStateTransition  # noqa: E402
from launch_ros.utilities import evaluate_parameters  # noqa: E402

DEFAULTS = {
    "model": "",
    "instruction": "",
    "device": "",
    "autostart": "",
    "dry_run": "",
    "image_transport": "",
    "params_file": str(share("config", "deer.yaml")),
    "namespace": "",
    "remap": "",
    "use_sim_time": "",
    "log_level": "info",
    "respawn": "false",
    "sim": "false",
    "task": "drawer-open",
    "record": "",
}
REPLAY_DEFAULTS = {
    "model": "",
    "rate": "1.0",
    "loop": "false",
    "start_paused": "false",
    "params_file": str(share("config", "deer.yaml")),
    "instruction": "",
    "device": "",
    "dry_run": "true",
    "image_transport": "",
    "remap": "",
    "namespace": "",
    "record": "",
    "player": "auto",
    "log_level": "info",
}


@pytest.fixture
def description():
    return get_launch_description_from_python_launch_file(str(share("launch", "deer.launch.py")))


@pytest.fixture
def replay():
    return get_launch_description_from_python_launch_file(str(share("launch", "replay.launch.py")))


@pytest.fixture
def bag(tmp_path):
    write_camera_bag(tmp_path / "bag", 3)
    return tmp_path / "bag"


def launched(entities, context) -> dict[str, launch.Action]:
    """What is started, by executable: nodes, ready to be, and `ros2` commands."""
    found = {}
    for entity in entities:
        if isinstance(entity, launch_ros.actions.Node):
            entity._perform_substitutions(context)
            found[entity.node_executable] = entity
        elif isinstance(entity, launch.actions.ExecuteProcess):
            found["ros2"] = entity
        elif isinstance(entity, launch.actions.RegisterEventHandler):
            if isinstance(entity.event_handler, OnStateTransition):
                found |= launched(entity.event_handler.entities or [], context)
        else:
            found |= launched(entity.visit(context) or [], context)
    return found


def launched_nodes(description, **arguments) -> dict[str, launch.Action]:
    context = launch.LaunchContext()
    context.launch_configurations.update(arguments)
    return launched(description.entities, context)


def declared(description) -> dict[str, str]:
    """Arguments with their defaults; those without one are left out."""
    context = launch.LaunchContext()
    return {
        argument.name: "".join(part.perform(context) for part in argument.default_value)
        for argument in description.get_launch_arguments() if argument.default_value is not None
    }


def remappings(node) -> dict[str, str]:
    return dict(node.expanded_remapping_rules or ())


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
    assert declared(description) == DEFAULTS
    assert all(argument.description for argument in description.get_launch_arguments())


def test_the_arguments_of_a_replay_and_their_defaults_are_the_documented_ones(replay):
    assert declared(replay) == REPLAY_DEFAULTS
    names = {argument.name for argument in replay.get_launch_arguments()}
    assert names == {"bag", *REPLAY_DEFAULTS}


def test_the_policy_node_starts_alone_with_the_parameter_file(description):
    nodes = launched_nodes(description)
    assert list(nodes) == ["policy_node"]
    node = nodes["policy_node"]
    assert node.node_name == "/deer"
    configured = yaml.safe_load(share("config", "deer.yaml").read_text())["/**"]["ros__parameters"]
    assert parameters(node) == configured


@pytest.mark.parametrize("arguments, is_simulated", [
    ({}, True), ({"use_sim_time": "false"}, False), ({"sim": "true"}, False),
])
def test_the_parameter_file_says_which_clock_counts_unless_an_argument_or_the_simulator_does(
    description, tmp_path, arguments, is_simulated
):
    file = tmp_path / "mine.yaml"
    file.write_text('{"/**": {"ros__parameters": {"use_sim_time": true}}}')
    nodes = launched_nodes(description, params_file=str(file), **arguments)
    assert parameters(nodes["policy_node"])["use_sim_time"] is is_simulated


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
    policy = parameters(nodes["policy_node"])
    assert policy["allow_simulation_model"] is True
    assert policy["safety.frozen_image_timeout"] == 0.0, "a drawn scene may stand still"
    assert parameters(nodes["sim_node"]) == {"lockstep": False, "task": "push"}


def test_under_simulated_time_the_simulated_robot_waits_for_every_action(description):
    nodes = launched_nodes(description, sim="true", use_sim_time="true")
    assert parameters(nodes["sim_node"])["lockstep"] is True


def test_the_real_robot_is_not_driven_by_a_model_from_simulation(description):
    assert parameters(launched_nodes(description)["policy_node"])["allow_simulation_model"] is False


@pytest.mark.parametrize("word, is_on", [("true", True), ("false", False)])
def test_the_policy_is_started_again_where_that_is_asked_for(description, word, is_on):
    policy = launched_nodes(description, respawn=word)["policy_node"]
    assert policy._ExecuteLocal__respawn is is_on
    assert policy._ExecuteLocal__respawn_delay == 2.0


def test_whoever_manages_lifecycles_can_be_left_the_start(description):
    assert parameters(launched_nodes(description, autostart="false")["policy_node"])[
        "autostart"] is False


def test_what_becomes_of_the_policy_is_told(description):
    context = launch.LaunchContext()
    context.launch_configurations.update(
        {name: default for name, default in declared(description).items()})
    entities = [entity for part in description.entities
                if isinstance(part, launch.actions.OpaqueFunction)
                for entity in part.visit(context)]
    handlers = [entity.event_handler for entity in entities
                if isinstance(entity, launch.actions.RegisterEventHandler)]
    words = ["".join(part.perform(context) for part in entity.msg)
             for handler in handlers if isinstance(handler, OnStateTransition)
             for entity in handler.entities]
    assert [word.split(":")[0] for word in words] == [
        f"the policy is {state}" for state in ("unconfigured", "inactive", "active")]
    assert len(handlers) == 4, "and its end"


@pytest.mark.parametrize(
    "argument", ["dry_run", "autostart", "respawn", "use_sim_time", "sim", "log_level"])
def test_a_wrong_word_is_refused(description, argument):
    with pytest.raises(RuntimeError, match=f'"{argument}" provided value "maybe"'):
        launched_nodes(description, **{argument: "maybe"})


def test_a_recorder_is_started_beside_them_and_agrees_with_the_policy(description, tmp_path):
    nodes = launched_nodes(description, record=str(tmp_path / "bag"), namespace="arm",
                           image_transport="compressed", use_sim_time="true")
    assert sorted(nodes) == ["policy_node", "recorder_node"]
    assert nodes["recorder_node"].node_name == "/arm/recorder"
    given = parameters(nodes["recorder_node"])
    assert (given["folder"], given["use_sim_time"]) == (str(tmp_path / "bag"), True)
    assert given["image.transport"] == "compressed"
    assert parameters(nodes["policy_node"])["image.transport"] == "compressed"


@pytest.mark.parametrize("section", ["/**", "deer", "/deer"])
def test_the_recorder_knows_how_pictures_come_from_the_policys_part_of_the_file(
    description, tmp_path, section
):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({section: {"ros__parameters": {"image": {
        "transport": "compressed"}}}, "/other": {"ros__parameters": {"image.transport": "raw"}}}))
    nodes = launched_nodes(description, record=str(tmp_path / "bag"), params_file=str(file))
    own = evaluate_parameters(
        launch.LaunchContext(), nodes["recorder_node"]._Node__parameters)[-1]
    assert own["image.transport"] == "compressed"


def test_nothing_is_started_without_the_parameter_file_that_was_asked_for(description, tmp_path):
    with pytest.raises(RuntimeError, match="my_deer.yml', and there is no such file"):
        launched_nodes(description, params_file=str(tmp_path / "my_deer.yml"))


def test_topics_are_remapped_for_all_nodes_and_compressed_pictures_with_their_camera(
    description, tmp_path
):
    nodes = launched_nodes(
        description, record=str(tmp_path / "bag"), sim="true",
        remap="camera/static/image:=/front/image_raw instruction:=/task")
    assert len(nodes) == 3
    for node in nodes.values():
        assert remappings(node) == {
            "camera/static/image": "/front/image_raw", "instruction": "/task",
            "camera/static/image/compressed": "/front/image_raw/compressed"}
    with pytest.raises(RuntimeError, match="remap has 'a=b'; it must be from:=to"):
        launched_nodes(description, remap="a=b")


def test_the_launch_files_need_no_package_that_only_the_nodes_python_has(tmp_path):
    blocked = ("rosbags", "mcap", "torch", "numpy", "zstandard")
    program = ["import sys", f"sys.modules.update(dict.fromkeys({blocked!r}))",
               "from launch.launch_description_sources import "
               "get_launch_description_from_python_launch_file as load"]
    program += [f"load({str(share('launch', name))!r}).get_launch_arguments()"
                for name in ("deer.launch.py", "replay.launch.py")]
    subprocess.run([sys.executable, "-c", "\n".join(program)], check=True)


def test_a_bag_is_replayed_into_a_policy_that_moves_nothing_on_the_bags_clock(replay, bag):
    nodes = launched_nodes(replay, bag=str(bag), player="deer_ros", rate="0.5", loop="true")
    assert sorted(nodes) == ["player_node", "policy_node"]
    policy, player = (parameters(nodes[name]) for name in ("policy_node", "player_node"))
    assert policy["use_sim_time"] is True and policy["dry_run"] is True
    assert policy["image.transport"] == "compressed", "as it is in the bag"
    expected = {"bag": str(bag), "rate": 0.5, "loop": True, "wait_for": "deer"}
    assert {name: player[name] for name in expected} == expected
    assert remappings(nodes["player_node"])["/deer/action"] == "/recorded/deer/action"


def test_no_recorded_command_is_taken_for_one_of_now_in_another_namespace(replay, bag):
    nodes = launched_nodes(replay, bag=str(bag), player="deer_ros", namespace="left",
                           image_transport="compressed", remap="end_effector/pose:=/tcp")
    moved = remappings(nodes["player_node"])
    assert moved["/left/deer/twist"] == "/recorded/left/deer/twist"
    assert moved["/end_effector/pose"] == "/recorded/end_effector/pose", "no input of this policy"


def test_topics_that_are_called_otherwise_are_the_policys_and_the_recorders(replay, bag, tmp_path):
    nodes = launched_nodes(replay, bag=str(bag), player="deer_ros", record=str(tmp_path / "new"),
                           remap="instruction:=/task end_effector/pose:=/tcp")
    for name in ("policy_node", "recorder_node"):
        assert remappings(nodes[name]) == {"instruction": "/task", "end_effector/pose": "/tcp"}


def test_where_rosbag2_is_installed_it_plays_the_bag_once_the_policy_is_active(replay, bag):
    found = launched_nodes(replay, bag=str(bag), player="rosbag2", rate="2", start_paused="true")
    assert sorted(found) == ["policy_node", "ros2"]
    context = launch.LaunchContext()
    command = ["".join(part.perform(context) for part in word) for word in found["ros2"].cmd]
    assert command[:4] == ["ros2", "bag", "play", str(bag)]
    assert command[command.index("--rate") + 1] == "2" and "--clock" in command
    assert "--start-paused" in command and "--loop" not in command
    assert "/deer/twist:=/recorded/deer/twist" in command[command.index("--remap"):]


def reasons_to_end(replay, context, exited) -> list[str]:
    """Of the shutdowns that follow from the end of that process."""
    event = ProcessExited(
        action=exited, name="it", cmd=[], cwd=None, env=None, pid=1, returncode=1)
    handlers = [entity.event_handler for part in replay.entities
                if isinstance(part, launch.actions.OpaqueFunction)
                for entity in part.visit(context)
                if isinstance(entity, launch.actions.RegisterEventHandler)]
    follows = [action for handler in handlers if handler.matches(event)
               for action in handler.handle(event, context)]
    follows += [after for action in follows if isinstance(action, launch.actions.TimerAction)
                for after in action.actions]
    return [action.event.reason for action in follows
            if isinstance(action, launch.actions.EmitEvent)]


@pytest.mark.parametrize("executable, reasons", [
    ("policy_node", ["the policy has ended"]), ("recorder_node", [])])
def test_a_replay_ends_where_its_policy_does(replay, bag, executable, reasons):
    context = launch.LaunchContext()
    context.launch_configurations.update(REPLAY_DEFAULTS | {"bag": str(bag), "player": "deer_ros"})
    exited = launch_ros.actions.Node(package="deer_ros", executable=executable)
    assert reasons_to_end(replay, context, exited) == reasons
    context._set_is_shutdown(True)
    assert not reasons_to_end(replay, context, exited), "launch shuts down but once"


def test_a_bag_without_the_cameras_is_refused_with_the_topics_that_it_has(replay, bag):
    with pytest.raises(RuntimeError, match=r"lacks /front.*its topics are: .*/instruction"):
        launched_nodes(replay, bag=str(bag), remap="camera/static/image:=/front")
    with pytest.raises(RuntimeError, match="there is no bag at"):
        launched_nodes(replay, bag="/no/such/bag")
