"""The player in a process of its own: what a bag holds comes out over DDS, byte for byte."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from camera_bag import MS, START_NS, new, text
from graph import isolated_graph, same_bytes
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64, String
from std_srvs.srv import SetBool

from deer_ros.data.bag_format import TYPES
from deer_ros.nodes.children import NodeProcess
from deer_ros.nodes.stamps import to_nanoseconds

MESSAGES = 40
PERIOD_NS = 25 * MS


def qos(reliability: str, durability: str, depth: int = 7) -> Qos:
    return Qos(QosHistory.KEEP_LAST, depth, QosReliability[reliability], QosDurability[durability],
               QosTime(0, 0), QosTime(0, 0), QosLiveliness.AUTOMATIC, QosTime(0, 0), False)


LATCHED, SENSOR = qos("RELIABLE", "TRANSIENT_LOCAL"), qos("BEST_EFFORT", "VOLATILE")


def write_bag(folder: Path, storage=StoragePlugin.MCAP, compression=None,
              messages: int = MESSAGES) -> dict[str, list[bytes]]:
    """One second of numbers, a latched word, and three messages of a type that nobody has."""
    types = TYPES
    foreign = get_types_from_msg("float64 value\n", "my_robot_msgs/msg/Gauge")
    if "my_robot_msgs/msg/Gauge" not in types.fielddefs:
        types.register(foreign)
    written: dict[str, list[bytes]] = {"/word": [], "/number": []}
    writer = Writer(folder, version=8, storage_plugin=storage)
    if compression is not None:
        writer.set_compression(compression, CompressionFormat.ZSTD)
    with writer as bag:
        connections = {
            topic: bag.add_connection(topic, kind, typestore=types, offered_qos_profiles=profiles)
            for topic, kind, profiles in (
                ("/word", "std_msgs/msg/String", [LATCHED]),
                ("/number", "std_msgs/msg/Float64", [SENSOR, SENSOR]),
                ("/gauge", "my_robot_msgs/msg/Gauge", []),
                ("/clock", "rosgraph_msgs/msg/Clock", []))}

        def put(topic: str, at_ns: int, message: object) -> None:
            data = bytes(types.serialize_cdr(message, connections[topic].msgtype))
            bag.write(connections[topic], at_ns, data)
            if topic in written:
                written[topic].append(data)

        put("/word", START_NS, text("once"))
        for number in range(messages):
            at_ns = START_NS + number * PERIOD_NS
            put("/number", at_ns, new("std_msgs/msg/Float64", data=number / 3))
            if number < 3:
                put("/gauge", at_ns, new("my_robot_msgs/msg/Gauge", value=1.0))
                time_of = new("builtin_interfaces/msg/Time", sec=1, nanosec=0)
                put("/clock", at_ns, new("rosgraph_msgs/msg/Clock", clock=time_of))
    return written


def ended(player: NodeProcess) -> bool:
    return player._process.poll() is not None


@pytest.fixture(scope="module")
def graph():
    with isolated_graph() as graph:
        yield graph


@pytest.mark.parametrize("storage, compression", [
    (StoragePlugin.MCAP, None), (StoragePlugin.SQLITE3, None),
    (StoragePlugin.SQLITE3, CompressionMode.FILE), (StoragePlugin.MCAP, CompressionMode.MESSAGE)])
def test_every_kind_of_bag_comes_out_as_it_was_recorded(tmp_path, graph, storage, compression):
    written = write_bag(tmp_path / "bag", storage, compression)
    words = graph.listen(String, "/word", latched=True)
    numbers = graph.listen(Float64, "/number", reliable=False)
    clocks = graph.listen(Clock, "/clock", raw=False)
    bag = {"bag": str(tmp_path / "bag"), "rate": 2, "start_paused": True}
    with NodeProcess("player_node", bag, tmp_path) as player:
        graph.wait_until(lambda: clocks, said=player.last_words)
        offered = {
            topic: graph.node.get_publishers_info_by_topic(topic)[0].qos_profile
            for topic in ("/word", "/number")}
        assert graph.call(SetBool, "/player/pause", SetBool.Request(data=False)).success
        graph.wait_until(lambda: ended(player) and len(words) and len(numbers) >= MESSAGES,
                         said=player.last_words)
        assert player.wait(30) == 0
        assert same_bytes(words, written["/word"])
        assert same_bytes(numbers, written["/number"])
        assert offered["/word"].durability is DurabilityPolicy.TRANSIENT_LOCAL
        assert offered["/word"].reliability is ReliabilityPolicy.RELIABLE
        assert offered["/number"].reliability is ReliabilityPolicy.BEST_EFFORT
        said = player.log.read_text()
        assert "my_robot_msgs/msg/Gauge is not installed: /gauge (3 messages)" in said
        assert f"played {MESSAGES + 1} messages on 2 topics" in said and "6 messages were" in said
    times = [to_nanoseconds(clock.clock) for clock in clocks]
    assert times == sorted(times) and times[0] == START_NS
    assert times[-1] == START_NS + (MESSAGES - 1) * PERIOD_NS


def test_a_loop_jumps_back_a_pause_stands_still_and_a_signal_ends_it(tmp_path, graph):
    write_bag(tmp_path / "bag")
    numbers = graph.listen(Float64, "/number", reliable=False)
    clocks = graph.listen(Clock, "/clock", raw=False)
    bag = {"bag": str(tmp_path / "bag"), "rate": 4.0, "loop": True, "start_paused": True}
    with NodeProcess("player_node", bag, tmp_path) as player:
        graph.wait_until(lambda: clocks and graph.node.count_publishers("/number"),
                         said=player.last_words)
        assert graph.call(SetBool, "/player/pause", SetBool.Request(data=False)).success

        def fell_back_to() -> list[int]:
            times = [to_nanoseconds(clock.clock) for clock in clocks]
            return [later for earlier, later in zip(times, times[1:]) if later < earlier]

        graph.wait_until(lambda: len(numbers) > 2.5 * MESSAGES and len(fell_back_to()) >= 2,
                         said=player.last_words)
        assert set(fell_back_to()) == {START_NS}
        assert numbers[MESSAGES] == numbers[0], "nothing is lost where it begins again"
        assert graph.call(SetBool, "/player/pause", SetBool.Request(data=True)).success
        # What was sent before the pause may still be under way when the answer comes, or later.
        # Ten ticks of the clock do not pass without a message while it plays.
        count, told = len(numbers), len(clocks)

        def stands_still() -> bool:
            nonlocal count, told
            if len(numbers) != count:
                count, told = len(numbers), len(clocks)
            return len(clocks) > told + 10

        graph.wait_until(stands_still, said=player.last_words)
        assert len({to_nanoseconds(clock.clock) for clock in clocks[-5:]}) == 1
        player.signal(signal.SIGINT)
        assert player.wait(30) == 0
        assert "Traceback" not in player.log.read_text()


def test_a_player_that_cannot_keep_up_obeys_all_the_same(tmp_path, graph):
    write_bag(tmp_path / "bag", messages=100_000)
    numbers = graph.listen(Float64, "/number", reliable=False)
    bag = {"bag": str(tmp_path / "bag"), "rate": 1000.0}
    with NodeProcess("player_node", bag, tmp_path) as player:
        graph.wait_until(lambda: numbers, said=player.last_words)
        assert graph.call(SetBool, "/player/pause", SetBool.Request(data=True)).success
        assert not ended(player)


def test_a_node_that_is_waited_for_is_told_of_and_one_that_cannot_be_is_refused(tmp_path, graph):
    write_bag(tmp_path / "bag")
    bag = {"bag": str(tmp_path / "bag"), "wait_for": "nobody"}
    with NodeProcess("player_node", bag, tmp_path) as player:
        graph.wait_until(lambda: "still waiting for nobody, which does not answer"
                         in player.log.read_text(), said=player.last_words)
    with NodeProcess("player_node", bag | {"wait_for": "no-body"}, tmp_path) as player:
        assert player.wait(60) == 2
        assert "wait_for is 'no-body', which is no node's name" in player.last_words()


def test_names_can_be_remapped_and_anothers_clock_left_alone(tmp_path, graph):
    written = write_bag(tmp_path / "bag")
    numbers = graph.listen(Float64, "/elsewhere/number", reliable=False)
    clocks = graph.listen(Clock, "/clock", raw=False)
    bag = {"bag": str(tmp_path / "bag"), "rate": 8.0, "clock_rate": 0, "start_paused": True}
    player = NodeProcess("player_node", bag, tmp_path)
    player._command += ["-r", "/number:=/elsewhere/number"]
    with player:
        graph.wait_until(lambda: graph.node.count_publishers("/elsewhere/number"))
        graph.call(SetBool, "/player/pause", SetBool.Request(data=False))
        graph.wait_until(lambda: ended(player) and len(numbers) >= MESSAGES and len(clocks) >= 3)
    assert same_bytes(numbers, written["/number"])
    # Those recorded come out then, and no others.
    assert len(clocks) == 3 and all(clock.clock.sec == 1 for clock in clocks)


@pytest.mark.parametrize("parameters, code, sentence", [
    ({}, 2, "bag is ''; allowed: the path of a bag"),
    ({"bag": "/no/such/bag"}, 2, "there is no bag at /no/such/bag"),
    ({"bag": "/no/such/bag", "rate": 0.0}, 2, "rate is 0.0; allowed"),
    ({"bag": "~nosuchuser/bag"}, 2, "bag is '~nosuchuser/bag', but there is no such user"),
    ({"bag": str(Path(__file__).parent)}, 2, "nothing of it can be read"),
])
def test_what_cannot_be_played_is_one_line(tmp_path, graph, parameters, code, sentence):
    with NodeProcess("player_node", parameters, tmp_path) as player:
        assert player.wait(60) == code
        lines = player.log.read_text().splitlines()
    assert len(lines) == 1 and sentence in lines[0]
