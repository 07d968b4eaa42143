"""What a bag commanded is played under other names, whatever it was called."""

from __future__ import annotations

import pytest

from deer_ros.data.recording import Topic
from deer_ros.replay.set_apart import OUTPUTS, set_apart

OF_A_NODE = {
    "action": "deer_ros/msg/EndEffectorAction",
    "status": "deer_ros/msg/PolicyStatus",
    "twist": "geometry_msgs/msg/TwistStamped",
    "target_pose": "geometry_msgs/msg/PoseStamped",
    "gripper": "std_msgs/msg/Float64",
    "debug_image": "sensor_msgs/msg/Image",
}
INPUTS = {
    "camera/static/image": "sensor_msgs/msg/Image",
    "joint_states": "sensor_msgs/msg/JointState",
    "end_effector/pose": "geometry_msgs/msg/PoseStamped",
    "instruction": "std_msgs/msg/String",
}


def topics(root: str = "", node: str = "deer", **others: str) -> dict[str, Topic]:
    """A bag that a policy node was recorded in. others: types by names under `root`."""
    kinds = {f"{node}/{name}": kind for name, kind in OF_A_NODE.items()} | INPUTS | others
    return {f"{root}/{name}": Topic(f"{root}/{name}", (kind,), "", "", 1, ())
            for name, kind in kinds.items()}


@pytest.mark.parametrize("root", ["", "/left", "/a/b"])
@pytest.mark.parametrize("node", ["/deer", "/left/deer"])
def test_a_nodes_outputs_are_set_apart_in_any_namespace_and_its_inputs_are_not(root, node):
    moved = set_apart(topics(root), node, [f"{root}/end_effector/pose"])
    expected = {f"{prefix}/{output}" for prefix in (node, f"{root}/deer") for output in OUTPUTS}
    assert moved == {name: f"/recorded{name}" for name in expected | {"/diagnostics"}}


def test_outputs_that_were_remapped_are_known_by_their_types():
    servo = {"servo/delta_twist_cmds": "geometry_msgs/msg/TwistStamped",
             "fingers/command": "std_msgs/msg/Float64",
             "arm/goal": "geometry_msgs/msg/PoseStamped",
             "brain/answer": "deer_ros/msg/EndEffectorAction"}
    moved = set_apart(topics(**servo), "/deer", ["/end_effector/pose"])
    assert set(moved) - set(set_apart(topics(), "/deer", ["/end_effector/pose"])) == {
        f"/{name}" for name in servo}


def test_a_node_of_another_name_is_known_by_its_action():
    moved = set_apart(topics(node="policy"), "/deer", ["/end_effector/pose"])
    assert moved["/policy/debug_image"] == "/recorded/policy/debug_image"


def test_what_lies_under_recorded_already_stays():
    shown = topics(**{"recorded/twist": "geometry_msgs/msg/TwistStamped",
                      "recorded/deer/action": "deer_ros/msg/EndEffectorAction"})
    assert not any(name.startswith("/recorded") for name in set_apart(shown, "/deer", []))
