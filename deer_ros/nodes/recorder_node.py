"""Node `recorder`: writes what the policy sees, answers and tells into a bag, as it goes.

Messages are taken as bytes and never decoded. They wait in bounded memory for a thread that writes
MCAP files of half a minute each.
"""

from __future__ import annotations

import threading
import time

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rcl_interfaces.msg import ParameterDescriptor
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.validate_full_topic_name import validate_full_topic_name

from deer_ros.control.sampler import CAMERAS
from deer_ros.data.rolling_bag import FILE_S, Channel
from deer_ros.nodes.executable import refused, spin_once
from deer_ros.nodes.paths import as_path
from deer_ros.nodes.policy.stop_signals import catch_stop_signals, on_stop_signal
from deer_ros.nodes.recorder.subscriptions import Definitions, TopicSubscriptions
from deer_ros.nodes.recorder.writing import Writing
from deer_ros.stepping.table import ANY_TEXT, START, Row, matching, number, one_of

POLICY = "deer"
TABLE = (
    Row("folder", str, "", "", matching(r".+", "the path of the new bag"), START,
        "Where the bag is written. If there is something in it, the bag goes to FOLDER_2, and so "
        "on: nothing is overwritten."),
    Row("topics", str, "", "", ANY_TEXT, START,
        "Names of further topics, with spaces between them."),
    Row("image.transport", str, "raw", "", one_of("raw", "compressed"), START,
        "The policy's: which pictures of the cameras are recorded."),
    Row("file_duration", float, FILE_S, "s", number(1, 3600), START, "Length of a file."),
    Row("queue", float, 64.0, "MiB", number(1, 65536), START,
        "Memory for messages that wait for the disk; what comes beyond is dropped and counted."),
)

LOOK_PERIOD_S = 0.2
REPORT_PERIOD_S = 1.0
WARN_EVERY_S = 5.0
# A policy that is stopped together with the recorder says so, and sends zero.
LAST_WORDS_S = 0.5
FLUSH_S = 1.0
FAILED = 1


def policy_topics(transport: str) -> list[str]:
    """Everything that goes into a policy and comes out of it, but for the debugging picture."""
    suffix = "/compressed" if transport == "compressed" else ""
    inputs = [f"camera/{camera}/image{suffix}" for camera in CAMERAS]
    inputs += ["joint_states", "end_effector/pose", "instruction"]
    outputs = ("action", "status", "twist", "target_pose", "gripper")
    return [*inputs, *(f"{POLICY}/{name}" for name in outputs), "/diagnostics"]


class RecorderNode(Node):
    """ValueError for a bad parameter, OSError where nothing can be written."""

    def __init__(self) -> None:
        super().__init__("recorder")
        values = {row.name: self._declared(row) for row in TABLE}
        folder = as_path("folder", values["folder"])
        further = values["topics"].split()
        for name in further:
            self._check_topic(name)
        self.failed = False
        self._told_drops = 0
        self._early: dict[Channel, bytes] = {}
        self._writing = Writing(folder, values["file_duration"], round(values["queue"] * 2**20))
        definitions = Definitions()
        names = policy_topics(values["image.transport"]) + further
        self._topics = [
            TopicSubscriptions(self, name, self._take, definitions)
            for name in dict.fromkeys(names)
        ]
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        # On the wall clock: simulated time may stand still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(LOOK_PERIOD_S, self._look, clock=steady)
        self.create_timer(REPORT_PERIOD_S, self._report, clock=steady)
        self.get_logger().info(f"recording to {self._writing.folder}")

    def close(self) -> None:
        """Finish the bag, and say what is in it."""
        self._writing.close()
        self._report()
        # Or the last report may end with the process, before anybody has it.
        self._diagnostics.wait_for_all_acked(Duration(seconds=FLUSH_S))
        if self._writing.failure is None:
            self.get_logger().info(
                f"{self._writing.written} messages in {self._writing.folder}, "
                f"{self._writing.dropped.total()} dropped.")

    def _declared(self, row: Row):
        descriptor = ParameterDescriptor(
            description=row.meaning, dynamic_typing=True, read_only=True)
        return row.convert(self.declare_parameter(row.name, row.default, descriptor).value)

    def _check_topic(self, name: str) -> None:
        try:
            validate_full_topic_name(self.resolve_topic_name(name))
        except Exception as error:  # rclpy's classes for what it refuses are many
            raise ValueError(
                f"topics speaks of {name!r}, which is no topic's name "
                f"({str(error).splitlines()[0]}); allowed: names with spaces between them, such as "
                "'/tf joint_states'") from None

    def _take(self, channel: Channel, data: bytes) -> None:
        now_ns = self.get_clock().now().nanoseconds
        if now_ns == 0:
            # Simulated time, of which nobody has told yet.
            self._early[channel] = data
            return
        for earlier in self._early.items():
            self._writing.put(earlier[0], now_ns, earlier[1])
        self._early.clear()
        self._writing.put(channel, now_ns, data)

    def _look(self) -> None:
        for topic in self._topics:
            known = topic.problem
            topic.look()
            if topic.problem and topic.problem != known:
                self.get_logger().warning(f"not recorded: {topic.name}, {topic.problem}.")

    def _report(self) -> None:
        writing = self._writing
        drops = writing.dropped.total()
        if writing.failure and not self.failed:
            self.failed = True
            self.get_logger().error(
                f"recording has stopped: {writing.failure}. {writing.written} messages were taken; "
                "the files that are there can be read.")
        elif drops > self._told_drops and not writing.failure:
            by_topic = ", ".join(f"{topic} {count}" for topic, count in writing.dropped.items())
            self.get_logger().warning(
                f"the disk is too slow: {drops} messages were dropped ({by_topic}).",
                throttle_duration_sec=WARN_EVERY_S)
        self._told_drops = drops
        level, text = DiagnosticStatus.OK, f"recording to {writing.folder}"
        if writing.failure:
            level, text = DiagnosticStatus.ERROR, f"recording has stopped: {writing.failure}"
        elif drops:
            level, text = DiagnosticStatus.WARN, "the disk is too slow"
        elif unrecorded := [topic for topic in self._topics if topic.problem]:
            level, text = DiagnosticStatus.WARN, "not recorded: " + "; ".join(
                f"{topic.name}, {topic.problem}" for topic in unrecorded)
        values = [KeyValue(key="messages", value=str(writing.written)),
                  KeyValue(key="dropped", value=str(drops))]
        message = DiagnosticArray(status=[
            DiagnosticStatus(name=self.get_name(), level=level, message=text, values=values)])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main() -> int:
    """Exit code 0 after a signal, 1 when nothing more could be written, 2 for a bad parameter."""
    stop = threading.Event()
    catch_stop_signals()
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = RecorderNode()
    except Exception as error:
        return refused("recorder", error)
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def end(_name: str) -> None:
        stop.set()
        executor.wake()

    on_stop_signal(end)
    try:
        while not (stop.is_set() or node.failed):
            spin_once(executor, node, 0.2)
        end_s = time.monotonic() + LAST_WORDS_S
        while not node.failed and time.monotonic() < end_s:
            spin_once(executor, node, 0.05)
    finally:
        # Whatever happened, what was taken becomes a bag.
        node.close()
        node.destroy_node()
        rclpy.shutdown()
    return FAILED if node.failed else 0
