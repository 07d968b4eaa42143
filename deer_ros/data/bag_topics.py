"""Which topics of a bag are the node's, by its own rules for names and remappings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deer_ros.control.sampler import CAMERAS
from deer_ros.data.bag_format import BagError
from deer_ros.data.own_messages import ACTION
from deer_ros.data.recording import Recording

NODE = "/deer"
RAW, COMPRESSED = "raw", "compressed"
IMAGE_KINDS = {RAW: "sensor_msgs/msg/Image", COMPRESSED: "sensor_msgs/msg/CompressedImage"}
IMAGE_SUFFIXES = {RAW: "", COMPRESSED: "/compressed"}
STATE = "state"


@dataclass(frozen=True)
class Topics:
    """Full names. cameras: topic by camera; image_kind: what they send. Optional ones may be
    missing in a bag. state: what a simulator knows, which no node reads."""

    cameras: Mapping[str, str]
    image_kind: str
    instruction: str
    pose: str
    joints: str
    action: str
    status: str
    twist: str
    opening: str
    state: str

    @property
    def kinds(self) -> dict[str, tuple[str, str]]:
        """What each input is for, and its message type, by topic; images apart."""
        return {
            self.instruction: ("instruction", "std_msgs/msg/String"),
            self.pose: ("pose", "geometry_msgs/msg/PoseStamped"),
            self.joints: ("joints", "sensor_msgs/msg/JointState"),
            self.twist: ("twist", "geometry_msgs/msg/TwistStamped"),
            self.opening: ("opening", "std_msgs/msg/Float64"),
            self.state: (STATE, "std_msgs/msg/Float64MultiArray"),
        }


class Names:
    """Resolves the node's names: relative ones begin at the root, `~` is the node itself."""

    def __init__(self, remappings: Iterable[str] = ()) -> None:
        """remappings: `from:=to` each, as on a node's command line. ValueError for another form."""
        self._to: dict[str, str] = {}
        for rule in remappings:
            before, separator, after = rule.partition(":=")
            if not (separator and before.strip() and after.strip()):
                raise ValueError(
                    f"the remapping {rule!r} is none; it must be from:=to, two names of topics."
                )
            self._to[_full(before.strip())] = _full(after.strip())

    def __call__(self, name: str) -> str:
        """The full name, after remapping."""
        return self._to.get(_full(name), _full(name))


def find_topics(recording: Recording, names: Names, transport: str | None) -> Topics:
    """The node's topics in this bag.

    transport: the one that images come by, `raw` or `compressed`; None: nobody has said, so take
    what is there. Raises BagError where a camera is missing, with a list of what is there, or a
    type is wrong.
    """
    if transport is None:
        transport = min((RAW, COMPRESSED), key=lambda way: len(_missing(recording, names, way)))
    missing = _missing(recording, names, transport)
    if missing:
        raise BagError(
            recording.path,
            f"it lacks {', '.join(missing)}; its topics are: {_there(recording)}. Say which are "
            "the cameras' by --remap, or remap:= of a launch file (image.transport is "
            f"{transport!r})",
        )
    topics = Topics(
        cameras={camera: _camera(names, camera, transport) for camera in CAMERAS},
        image_kind=IMAGE_KINDS[transport],
        instruction=names("instruction"),
        pose=names("end_effector/pose"),
        joints=names("joint_states"),
        action=names("~/action"),
        status=names("~/status"),
        twist=names("recorded/twist"),
        opening=names("recorded/gripper"),
        state=names("simulator/state"),
    )
    _check_kinds(recording, topics)
    return topics


def check_instruction(recording: Recording, topics: Topics, given: str | None) -> None:
    """BagError unless an instruction is given or one was recorded."""
    if not given and not has(recording, topics.instruction):
        raise BagError(
            recording.path,
            f"nothing was recorded on {topics.instruction}; give --instruction TEXT, or remap one "
            f"of its topics: {_there(recording)}",
        )


def kinds_to_read(recording: Recording, topics: Topics) -> dict[str, str]:
    """What each topic that is there is for, the cameras' apart.

    What a demonstrator did goes before what a policy said at the same time. BagError where half of
    it is missing: the policy's words must not stand for it.
    """
    kinds = {topic: kind for topic, (kind, _) in topics.kinds.items() if has(recording, topic)}
    demonstrated = {"recorded/twist": topics.twist, "recorded/gripper": topics.opening}
    missing = [name for name, topic in demonstrated.items() if topic not in kinds]
    if len(missing) == 1:
        (there,) = demonstrated.keys() - missing
        raise BagError(
            recording.path,
            f"{demonstrated[there]} has messages and {demonstrated[missing[0]]} has none; what was "
            f"done is told by both. Name the other by --remap {missing[0]}:=TOPIC, or leave out "
            f"what is there by --remap {there}:=none; its topics are: {_there(recording)}",
        )
    if missing and has(recording, topics.action):
        kinds[topics.action] = "action"
    return kinds


def has(recording: Recording, topic: str) -> bool:
    """Whether there is a message on it."""
    return topic in recording.topics and recording.topics[topic].count > 0


def _there(recording: Recording) -> str:
    topics = sorted(recording.topics.values(), key=lambda topic: topic.name)
    return ", ".join(f"{topic.name} ({topic.kind})" for topic in topics) or "none"


def _camera(names: Names, camera: str, transport: str) -> str:
    """The suffix belongs to the name that is remapped, as image_transport has it."""
    base, suffix = f"camera/{camera}/image", IMAGE_SUFFIXES[transport]
    whole = names(base + suffix)
    return whole if whole != _full(base + suffix) else names(base) + suffix


def _missing(recording: Recording, names: Names, transport: str) -> list[str]:
    wanted = [_camera(names, camera, transport) for camera in CAMERAS]
    return [topic for topic in wanted if not has(recording, topic)]


def _check_kinds(recording: Recording, topics: Topics) -> None:
    expected = {topic: kind for topic, (_, kind) in topics.kinds.items()}
    expected |= dict.fromkeys(topics.cameras.values(), topics.image_kind) | {topics.action: ACTION}
    for name, kind in expected.items():
        found = recording.topics.get(name)
        if found is not None and found.kinds != (kind,):
            raise BagError(
                recording.path, f"{name} holds {' and '.join(found.kinds)}; it must hold {kind}"
            )


def _full(name: str) -> str:
    if name.startswith("~/"):
        return f"{NODE}/{name[2:]}"
    return name if name.startswith("/") else f"/{name}"
