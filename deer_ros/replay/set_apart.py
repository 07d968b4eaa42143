"""What of a bag must not come out under its own name, where it is played beside a robot."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from deer_ros.data.own_messages import ACTION, STATUS
from deer_ros.data.recording import Topic
from deer_ros.replay.records import EARLIER

OUTPUTS = ("action", "status", "twist", "target_pose", "gripper", "debug_image")
# A policy's outputs by their types: remapped, they have names of their own.
COMMANDS = {
    ACTION,
    STATUS,
    "geometry_msgs/msg/TwistStamped",
    "geometry_msgs/msg/PoseStamped",
    "std_msgs/msg/Float64",
}


def set_apart(topics: Mapping[str, Topic], node: str, inputs: Collection[str]) -> dict[str, str]:
    """New names by old ones: whatever commanded when the bag was recorded commands nothing now.

    It is known by its type, or by its name: that of an output of `node`, which the bag is played
    to, or of a policy node that was recorded, whose action and status tell its name. inputs: full
    names of what `node` listens to, which keep theirs, as does what lies under /recorded already.
    """
    names = {topic.name for topic in topics.values() if COMMANDS.intersection(topic.kinds)}
    for prefix in {node, *_recorded_nodes(topics)}:
        names |= {f"{prefix}/{output}" for output in OUTPUTS}
    names = {name for name in names if not name.startswith(f"{EARLIER}/")}
    return {name: EARLIER + name for name in sorted(names.difference(inputs) | {"/diagnostics"})}


def _recorded_nodes(topics: Mapping[str, Topic]) -> set[str]:
    """The policy nodes whose action or status was recorded under its own name."""
    own = {(ACTION, "action"), (STATUS, "status")}
    named = [(topic, *topic.name.rpartition("/")[::2]) for topic in topics.values()]
    return {node for topic, node, name in named for kind in topic.kinds if (kind, name) in own}
