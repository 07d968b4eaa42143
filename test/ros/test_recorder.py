"""The recorder in a process of its own, beside publishers like a robot's."""

from __future__ import annotations

import os
import resource
import signal
from array import array

import cv2
import numpy as np
import pytest
from deer_ros.msg import EndEffectorAction
from diagnostic_msgs.msg import DiagnosticArray
from graph import WAIT_S, Graph, isolated_graph, same_bytes
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.interfaces import QosDurability, QosReliability
from rosbags.rosbag2 import Reader
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import String
from stillness import on_time

from deer_ros.data.bag_format import BagError
from deer_ros.data.recording import Recording
from deer_ros.nodes.children import NodeProcess
from deer_ros.nodes.stamps import to_time

STATIC, GRIPPER = (f"/camera/{camera}/image/compressed" for camera in ("static", "gripper"))
# Of depth 1, a second instruction would take the place of one that is still under way.
LATCHED = QoSProfile(depth=2, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RATE_HZ, SECONDS = 30, 3


@pytest.fixture
def graph():
    with isolated_graph() as graph:
        yield graph


def recorder(here, **parameters) -> NodeProcess:
    given = {"folder": str(here / "bag"), "image.transport": "compressed", **parameters}
    return NodeProcess("recorder_node", given, here)


def jpeg(number: int, height: int = 480, width: int = 640) -> CompressedImage:
    """A picture of about the size that a camera's have."""
    random = np.random.default_rng(number)
    pixels = cv2.resize(random.integers(0, 256, (height // 8, width // 8, 3), np.uint8),
                        (width, height))
    _, data = cv2.imencode(".jpg", pixels)
    message = CompressedImage(format="jpeg", data=array("B", data.tobytes()))
    message.header.stamp = to_time(10**18 + number)
    return message


def recorded(folder) -> tuple[dict[str, list[bytes]], list[str]]:
    """By topic, and what is lost."""
    found: dict[str, list[bytes]] = {}
    with Recording(folder) as recording:
        for topic, _, data in recording.messages():
            found.setdefault(topic, []).append(bytes(data))
        return found, recording.losses


def on_disk(folder) -> dict[str, list[bytes]]:
    """What can be read of a bag that is being written."""
    try:
        return recorded(folder)[0]
    except (BagError, FileNotFoundError):
        return {}


class Robot:
    """Two cameras, a latched and a plain publisher of instructions, and a policy's action.

    camera_qos: best effort loses pictures where the recorder gets no time for some tenths of a
    second: this process has no room for more of them, as ROS's defaults are.
    """

    def __init__(self, graph, camera_qos=qos_profile_sensor_data):
        make = graph.node.create_publisher
        self.graph = graph
        self.cameras = {topic: make(CompressedImage, topic, camera_qos)
                        for topic in (STATIC, GRIPPER)}
        self.latched = make(String, "/instruction", LATCHED)
        self.plain = make(String, "/instruction", 10)
        self.action = make(EndEffectorAction, "/deer/action", 10)
        self.sent: dict[str, list[bytes]] = {STATIC: [], GRIPPER: [], "/deer/action": []}
        self.pictures = [jpeg(number) for number in range(4)]
        assert 20_000 < len(self.pictures[0].data) < 200_000

    def wait_for_recorder(self, process) -> None:
        publishers = [*self.cameras.values(), self.latched, self.plain, self.action]
        self.graph.wait_until(
            lambda: all(publisher.get_subscription_count() for publisher in publishers)
            and self.latched.get_subscription_count() == 2, said=process.last_words)

    def send(self, number: int) -> None:
        for topic, publisher in self.cameras.items():
            message = self.pictures[number % len(self.pictures)]
            message.header.stamp = to_time(10**18 + number)
            data = serialize_message(message)
            publisher.publish(data)
            self.sent[topic].append(data)
        action = serialize_message(EndEffectorAction(step=number))
        self.action.publish(action)
        self.sent["/deer/action"].append(action)

    def send_for(self, seconds: float) -> None:
        """No burst follows where this process stood still: cameras send none."""
        for number in range(round(seconds * RATE_HZ)):
            self.send(number)
            self.graph.rest(1 / RATE_HZ)

    def wait_for_disk(self, folder, process, timeout_s: float = WAIT_S) -> None:
        """Until all that was sent is there."""
        def is_there() -> bool:
            # Reading takes time that the recorder needs.
            self.graph.rest(0.3)
            found = on_disk(folder)
            return all(len(found.get(topic, [])) == len(sent) for topic, sent in self.sent.items())

        self.graph.wait_until(is_there, timeout_s, said=process.last_words)


def test_two_cameras_instructions_and_actions_are_recorded_without_a_loss(tmp_path_factory):
    def record() -> None:
        with isolated_graph() as graph:
            record_all(tmp_path_factory.mktemp("recorded"), graph)

    on_time(record)


def record_all(tmp_path, graph) -> None:
    robot = Robot(graph)
    robot.latched.publish(String(data="said before"))
    with recorder(tmp_path) as process:
        robot.wait_for_recorder(process)
        robot.latched.publish(String(data="latched"))
        robot.plain.publish(String(data="plain"))
        robot.send_for(SECONDS)
        robot.wait_for_disk(tmp_path / "bag", process, 20.0)
        # What comes shortly before the signal is recorded, too.
        robot.send(SECONDS * RATE_HZ)
        graph.rest(0.5)
        process.signal(signal.SIGINT)
        assert process.wait(30) == 0, process.last_words()
        assert "0 dropped" in process.log.read_text()
    found, losses = recorded(tmp_path / "bag")
    assert not losses
    for topic, sent in robot.sent.items():
        assert same_bytes(found[topic], sent), topic
    said = [deserialize_message(data, String).data for data in found["/instruction"]]
    assert sorted(said) == ["latched", "plain", "said before"], "each once"
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == sum(map(len, found.values()))
        offered = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}
    assert offered[STATIC][0].reliability is QosReliability.BEST_EFFORT
    assert QosDurability.TRANSIENT_LOCAL in {each.durability for each in offered["/instruction"]}


def test_what_a_recorder_has_written_outlives_its_being_killed(tmp_path, graph):
    robot = Robot(graph, QoSProfile(depth=100))
    with recorder(tmp_path, file_duration=1.5) as process:
        robot.wait_for_recorder(process)
        robot.send_for(2.5)
        robot.wait_for_disk(tmp_path / "bag", process)
        process.signal(signal.SIGKILL)
        process.wait(10)
    found, _ = recorded(tmp_path / "bag")
    for topic, sent in robot.sent.items():
        came = found[topic]
        assert same_bytes(came, sent), (topic, len(came), len(sent))
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count > RATE_HZ, "metadata.yaml knows the finished files"


def test_a_full_disk_ends_the_recording_with_an_error_and_keeps_what_there_is(tmp_path, graph):
    robot = Robot(graph)
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics", raw=False)
    with recorder(tmp_path) as process:
        robot.wait_for_recorder(process)
        # As a full disk does, it makes every write beyond fail.
        size = 4 * 2**20
        resource.prlimit(process._process.pid, resource.RLIMIT_FSIZE, (size, size))
        number = 0

        def ended() -> bool:
            nonlocal number
            number += 1
            robot.send(number)
            return process._process.poll() is not None

        graph.wait_until(ended, said=process.last_words)
        assert process.wait(30) == 1
        said = process.log.read_text()
    assert "recording has stopped" in said and "Traceback" not in said
    graph.wait_until(lambda: any(
        b"\x02" == status.level for message in diagnostics for status in message.status))
    found, losses = recorded(tmp_path / "bag")
    assert losses and len(found[STATIC]) > 10
    # Sent at any rate, and best effort: what came is whole, and in order.
    sent = iter(robot.sent[STATIC])
    assert all(any(same_bytes([came], [data]) for data in sent) for came in found[STATIC])


def test_a_second_recording_goes_to_a_folder_of_its_own_and_a_jump_back_in_time_too(
    tmp_path, graph
):
    clock = graph.node.create_publisher(Clock, "/clock", 10)
    plain = graph.node.create_publisher(String, "/instruction", 10)
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "mine").touch()
    with recorder(tmp_path, use_sim_time=True) as process:
        graph.wait_until(lambda: plain.get_subscription_count() and clock.get_subscription_count())
        plain.publish(String(data="before there was a time"))
        graph.rest(1.5)
        for second, text, name, count in (
            (100, "first", "bag_2", 2), (101, "second", "bag_2", 3), (50, "again", "bag_3", 1)
        ):
            for _ in range(30):
                clock.publish(Clock(clock=to_time(second * 10**9)))
                graph.rest(0.01)
            plain.publish(String(data=text))
            # Or the next time might overtake it.
            graph.wait_until(
                lambda name=name, count=count:
                len(on_disk(tmp_path / name).get("/instruction", [])) == count,
                said=process.last_words)
        process.signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert [path.name for path in (tmp_path / "bag").iterdir()] == ["mine"]
    times = {}
    for name in ("bag_2", "bag_3"):
        with Recording(tmp_path / name) as recording:
            messages = recording.messages(["/instruction"])
            times[name] = [recorded_ns for _, recorded_ns, _ in messages]
    assert times == {"bag_2": [100 * 10**9] * 2 + [101 * 10**9], "bag_3": [50 * 10**9]}
    with Recording(tmp_path / "bag_2") as recording:
        assert min(recorded_ns for _, recorded_ns, _ in recording.messages()) == 100 * 10**9


@pytest.mark.parametrize("parameters, sentence", [
    ({"folder": ""}, "folder is ''; allowed: the path of the new bag"),
    ({"folder": "/proc/bag"}, "/proc/bag"),
    ({"file_duration": 0.0}, "file_duration is 0.0; allowed"),
    ({"folder": "~nosuchuser/bag"}, "folder is '~nosuchuser/bag', but there is no such user"),
    ({"topics": "/tf,/joint_states"}, "topics speaks of '/tf,/joint_states', which is no topic's"),
    ({"topics": "/tf my-topic"}, "topics speaks of 'my-topic', which is no topic's name"),
    ({"topics": "camera/"}, "topics speaks of 'camera/', which is no topic's name"),
    ({"topics": "/a//b"}, "topics speaks of '/a//b', which is no topic's name"),
])
def test_what_cannot_be_recorded_is_one_line(tmp_path, graph, parameters, sentence):
    with recorder(tmp_path, **parameters) as process:
        assert process.wait(60) == 2
        lines = process.log.read_text().splitlines()
    assert len(lines) == 1 and sentence in lines[0]


def test_a_missing_parameter_file_is_one_line(tmp_path, graph):
    process = recorder(tmp_path)
    process._command += ["--params-file", "/no/such/file.yaml"]
    with process:
        assert process.wait(60) == 2
        said = process.log.read_text()
    assert "/no/such/file.yaml" in said and "Traceback" not in said


def test_a_publisher_of_another_type_that_goes_away_costs_nothing(tmp_path, graph):
    """Neither one that was alone at first, nor one beside the right one."""
    diagnostics = graph.listen(DiagnosticArray, "/diagnostics", raw=False)
    # One process cannot have both types.
    elsewhere = Graph(int(os.environ["ROS_DOMAIN_ID"]))
    stray = elsewhere.node.create_publisher(String, "/deer/action", 10)

    def warned() -> bool:
        return any("deer/action" in status.message and status.level == b"\x01"
                   for message in diagnostics for status in message.status)

    with recorder(tmp_path) as process:
        graph.wait_until(stray.get_subscription_count, said=process.last_words)
        right = graph.node.create_publisher(EndEffectorAction, "/deer/action", 10)
        graph.wait_until(warned, said=process.last_words)
        elsewhere.close()
        graph.wait_until(right.get_subscription_count, said=process.last_words)
        action = serialize_message(EndEffectorAction(step=7))
        right.publish(action)
        graph.rest(0.5)
        process.signal(signal.SIGINT)
        assert process.wait(30) == 0, process.last_words()
    found, losses = recorded(tmp_path / "bag")
    assert not losses and same_bytes(found["/deer/action"], [action])
