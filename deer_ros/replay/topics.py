"""Which topics of a bag are the node's, by its own rules for names and remappings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deer_ros.control.sampler import CAMERAS
from deer_ros.data.bag_format import BagError
from deer_ros.data.recording import Recording
from deer_ros.stepping.settings import Settings

NODE = "/deer"
RAW, COMPRESSED = "raw", "compressed"
IMAGE_KINDS = {RAW: "sensor_msgs/msg/Image", COMPRESSED: "sensor_msgs/msg/CompressedImage"}
IMAGE_SUFFIXES = {RAW: "", COMPRESSED: "/compressed"}


@dataclass(frozen=True)
class Topics:
    """Full names. cameras: topic by camera. optional ones may be missing in a bag."""

    cameras: Mapping[str, str]
    instruction: str
    pose: str
    joints: str
    action: str
    status: str
    twist: str
    opening: str

    @property
    def kinds(self) -> dict[str, tuple[str, str]]:
        """What each input is for, and its message type, by topic; images apart."""
        return {
            self.instruction: ("instruction", "std_msgs/msg/String"),
            self.pose: ("pose", "geometry_msgs/msg/PoseStamped"),
            self.joints: ("joints", "sensor_msgs/msg/JointState"),
            self.twist: ("twist", "geometry_msgs/msg/TwistStamped"),
            self.opening: ("opening", "std_msgs/msg/Float64"),
        }


class Names:
    """Resolves the node's names: relative ones begin at the root, `~` is the node itself."""

    def __init__(self, remappings: Iterable[str] = ()) -> None:
        """remappings: `from:=to` each, as on a node's command line. ValueError for another form."""
        self._to: dict[str, str] = {}
        for rule in remappings:
            before, separator, after = rule.partition(":=")
            if not (separator and before.strip() and after.strip()):
                raise ValueError(f"--remap is {rule!r}; it must be from:=to, two names of topics.")
            self._to[_full(before.strip())] = _full(after.strip())

    def __call__(self, name: str) -> str:
        """The full name, after remapping."""
        return self._to.get(_full(name), _full(name))


def find_topics(recording: Recording, names: Names, settings: Settings, is_free: bool) -> Topics:
    """The node's topics in this bag.

    is_free: nobody has said which transport the images come by, so take what is there.
    Raises BagError with a list of what is there where a camera is missing or a type is wrong.
    """
    transport = settings.image_transport
    if is_free:
        transport = next(
            (way for way in (RAW, COMPRESSED) if not _missing(recording, names, way)), transport
        )
    missing = _missing(recording, names, transport)
    if missing:
        there = ", ".join(
            f"{topic.name} ({topic.kind})" for topic in sorted(
                recording.topics.values(), key=lambda topic: topic.name)
        )
        raise BagError(
            recording.path,
            f"it lacks {', '.join(missing)}; its topics are: {there or 'none'}. Say which are the "
            f"cameras' with --remap (image.transport is {transport!r})",
        )
    topics = Topics(
        cameras={camera: _camera(names, camera, transport) for camera in CAMERAS},
        instruction=names("instruction"),
        pose=names("end_effector/pose"),
        joints=names("joint_states"),
        action=names("~/action"),
        status=names("~/status"),
        twist=names("recorded/twist"),
        opening=names("recorded/gripper"),
    )
    _check_kinds(recording, topics, IMAGE_KINDS[transport])
    return topics


def _camera(names: Names, camera: str, transport: str) -> str:
    """The suffix belongs to the name that is remapped, as image_transport has it."""
    base, suffix = f"camera/{camera}/image", IMAGE_SUFFIXES[transport]
    whole = names(base + suffix)
    return whole if whole != _full(base + suffix) else names(base) + suffix


def _missing(recording: Recording, names: Names, transport: str) -> list[str]:
    wanted = [_camera(names, camera, transport) for camera in CAMERAS]
    return [
        topic for topic in wanted
        if topic not in recording.topics or not recording.topics[topic].count
    ]


def _check_kinds(recording: Recording, topics: Topics, image_kind: str) -> None:
    expected = {topic: kind for topic, (_, kind) in topics.kinds.items()}
    expected |= dict.fromkeys(topics.cameras.values(), image_kind)
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
