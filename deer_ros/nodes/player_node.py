"""Node `player`: plays a recorded bag, of any origin, into a live graph.

Topics, types, bytes and quality of service are the recorded ones; remapping rules apply as to any
node. `/clock` tells the bag's time. The process ends when the bag has.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter

import rclpy
from lifecycle_msgs.msg import State
from lifecycle_msgs.srv import GetState
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.client import Client
from rclpy.exceptions import NameValidationException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.publisher import Publisher
from rclpy.signals import SignalHandlerOptions
from rosgraph_msgs.msg import Clock
from std_srvs.srv import SetBool

from deer_ros.data.recording import Recording
from deer_ros.nodes.executable import refused, spin_once
from deer_ros.nodes.paths import as_path
from deer_ros.nodes.player.ahead import ReadAhead
from deer_ros.nodes.player.pace import Pace
from deer_ros.nodes.player.publishers import open_publishers
from deer_ros.nodes.policy.stop_signals import catch_stop_signals, on_stop_signal
from deer_ros.nodes.stamps import to_time
from deer_ros.stepping.table import ANY_TEXT, LIVE, START, TRUTH, Row, matching, number

TABLE = (
    Row("bag", str, "", "", matching(r".+", "the path of a bag"), START,
        "A bag's folder, or one of its files."),
    Row("rate", float, 1.0, "", number(0.001, 1000), LIVE,
        "Speed: 0.5 takes twice as long as the recording."),
    Row("loop", bool, False, "", TRUTH, LIVE, "Begin again at the end, with a jump back in time."),
    Row("start_paused", bool, False, "", TRUTH, START, "Wait for ~/pause with false."),
    Row("clock_rate", float, 100.0, "Hz", number(0, 1000), START,
        "Messages per second on /clock beside one before every message; 0: no /clock at all."),
    Row("wait_for", str, "", "", ANY_TEXT, START,
        "A managed node that must be active before the first message is played."),
)
ROWS = {row.name: row for row in TABLE}

# Longest sleep, so that services and signals are obeyed.
NAP_NS = 50_000_000
# Reading ahead takes no more than this at a time.
READING_NS = 5_000_000
# Between /clock's jump to where a bag begins and the messages before and after it: topics overtake
# each other.
LEAD_NS = 100_000_000
# For subscribers to be found.
MATCHING_NS = 1_000_000_000
ASK_EVERY_NS = 200_000_000
# Of waiting for another node; and a gap in the bag that is told of.
LONG_NS = 10_000_000_000
# A clock that stands still is told no more often, for those who come late.
STANDING_CLOCK_NS = 100_000_000
FAILED = 1


class PlayerNode(Node):
    """ValueError for a bad parameter. `play` is to be called once, in the executor's thread."""

    def __init__(self, stop: threading.Event) -> None:
        super().__init__("player")
        self._stop = stop
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)
        self._declare()
        self._pace = Pace(self._value("rate"), self._value("start_paused"))
        self._clock_period_ns = round(1e9 / (self._value("clock_rate") or math.inf))
        self._clock: Publisher | None = None
        if self._clock_period_ns:
            self._clock = self.create_publisher(Clock, "/clock", 10)
        self._clock_due_ns = 0
        self._spun_ns = 0
        self._told_ns: int | None = None
        self._played: Counter[str] = Counter()
        self._latest_ns = 0
        self.create_service(SetBool, "~/pause", self._on_pause)

    def wake(self) -> None:
        """Notice that it is to stop. May be called from any thread."""
        self._executor.wake()

    def play(self) -> int:
        """Play the bag to its end; the exit code. Raises as Recording for what is no bag."""
        with Recording(as_path("bag", self._value("bag"))) as recording:
            publishers = open_publishers(self, recording, self._clock is not None)
            told = self._tell_losses(recording, 0)
            for reason, topics in publishers.skipped.items():
                self.get_logger().warning(f"not played, {reason}: {', '.join(topics)}")
            if not publishers.of:
                self.get_logger().error("there is nothing in the bag that could be played.")
                return FAILED
            started_ns = time.monotonic_ns()
            ready = False
            while not self._stop.is_set():
                ahead = ReadAhead(recording.messages(publishers.of))
                first = ahead.first()
                if first is None:
                    self.get_logger().error("there is no message in the bag that could be played.")
                    return FAILED
                if not ready:
                    self._wait_for_others(publishers.of, first[1])
                    ready, started_ns = True, time.monotonic_ns()
                self._play_through(ahead, publishers.of)
                if not self._value("loop"):
                    break
                # A picture that came after the jump would be one from the future.
                self._spin(LEAD_NS, self._told_ns or 0)
            self._tell_losses(recording, told)
            self._report(publishers, started_ns)
        return 0

    def _declare(self) -> None:
        for row in TABLE:
            # Dynamic typing lets a whole number through where a double is asked for.
            descriptor = ParameterDescriptor(description=row.meaning, dynamic_typing=True)
            row.convert(self.declare_parameter(row.name, row.default, descriptor).value)
        self.add_on_set_parameters_callback(self._on_set)

    def _value(self, name: str):
        return ROWS[name].convert(self.get_parameter(name).value)

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        try:
            for parameter in parameters:
                row = ROWS.get(parameter.name)
                if row is not None:
                    row.convert(parameter.value)
                    if row.change != LIVE:
                        raise ValueError(f"{row.name} counts only at start.")
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        for parameter in parameters:
            if parameter.name == "rate":
                self._pace.set_rate(float(parameter.value), time.monotonic_ns())
        return SetParametersResult(successful=True)

    def _on_pause(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._pace.pause(request.data, time.monotonic_ns())
        response.success = True
        response.message = "paused." if request.data else "going on."
        return response

    # Playing.

    def _wait_for_others(self, publishers: dict[str, Publisher], bag_ns: int) -> None:
        """Until the node that was named is active, and whoever listens is known to do so."""
        self._pace.start(bag_ns, time.monotonic_ns())
        name = self._value("wait_for")
        if name:
            self.get_logger().info(f"waiting for the node {name} to be active")
            self._wait_until_active(name, bag_ns)
        deadline_ns = time.monotonic_ns() + MATCHING_NS

        def is_matched() -> bool:
            return time.monotonic_ns() > deadline_ns or all(
                publisher.get_subscription_count() >= self.count_subscribers(publisher.topic_name)
                for publisher in publishers.values()
            )

        self._spin(LEAD_NS, bag_ns)
        while not (is_matched() or self._stop.is_set()):
            self._spin(NAP_NS, bag_ns)

    def _wait_until_active(self, name: str, bag_ns: int) -> None:
        try:
            client = self.create_client(GetState, f"{name}/get_state")
        except NameValidationException as error:
            raise ValueError(f"wait_for is {name!r}, which is no node's name "
                             f"({str(error).splitlines()[0]}); allowed: a name such as "
                             "'deer' or '/left/deer'") from None
        tell_ns = time.monotonic_ns() + LONG_NS
        while not self._stop.is_set():
            state = self._asked_state(client, bag_ns)
            if state is not None and state.id == State.PRIMARY_STATE_ACTIVE:
                break
            if time.monotonic_ns() >= tell_ns:
                self.get_logger().warning(f"still waiting for {name}, which "
                                          + (f"is {state.label}" if state else "does not answer"))
                tell_ns = time.monotonic_ns() + LONG_NS
        self.destroy_client(client)

    def _asked_state(self, client: Client, bag_ns: int) -> State | None:
        """What a managed node says within ASK_EVERY_NS, which pass in any case."""
        if not client.service_is_ready():
            self._spin(ASK_EVERY_NS, bag_ns)
            return None
        answer = client.call_async(GetState.Request())
        self._spin(ASK_EVERY_NS, bag_ns)
        if answer.done():
            return answer.result().current_state
        client.remove_pending_request(answer)
        return None

    def _play_through(self, ahead: ReadAhead, publishers: dict[str, Publisher]) -> None:
        first_ns = ahead.first()[1]
        self._pace.start(first_ns, time.monotonic_ns() + LEAD_NS)
        self._publish_clock(first_ns, time.monotonic_ns())
        while (message := ahead.first()) is not None:
            topic, bag_ns, data = message
            self._tell_gap(topic, bag_ns)
            if not self._wait(bag_ns, ahead):
                return
            now_ns = time.monotonic_ns()
            self._latest_ns = max(self._latest_ns, self._pace.done(bag_ns, now_ns))
            self._publish_clock(bag_ns, now_ns)
            publishers[topic].publish(bytes(data))
            self._played[topic] += 1
            ahead.drop()

    def _wait(self, bag_ns: int, ahead: ReadAhead) -> bool:
        """Until a moment is due. False: the player is to stop."""
        while not self._stop.is_set():
            # Where all is late, or much is read ahead, it never naps, and must listen all the same.
            if time.monotonic_ns() - self._spun_ns >= NAP_NS:
                self._listen(0)
            wait_ns = self._pace.wait_ns(bag_ns, time.monotonic_ns())
            if wait_ns is not None and wait_ns <= 0:
                return True
            wait_ns = NAP_NS if wait_ns is None else wait_ns
            if wait_ns < READING_NS or not ahead.read_one():
                self._nap(wait_ns)
            self._tick(bag_ns)
        return False

    def _spin(self, duration_ns: int, bag_ns: int) -> None:
        """Let time pass, but not the bag's."""
        end_ns = time.monotonic_ns() + duration_ns
        while not self._stop.is_set() and (left_ns := end_ns - time.monotonic_ns()) > 0:
            self._nap(left_ns)
            self._tick(bag_ns)

    def _nap(self, longest_ns: int) -> None:
        if self._clock is not None:
            longest_ns = min(longest_ns, self._clock_due_ns - time.monotonic_ns())
        self._listen(max(0, min(longest_ns, NAP_NS)))

    def _listen(self, longest_ns: int) -> None:
        spin_once(self._executor, self, longest_ns / 1e9)
        self._spun_ns = time.monotonic_ns()

    def _tick(self, latest_bag_ns: int) -> None:
        """Tell the time if it is due to be told; never one after a message that is to come."""
        now_ns = time.monotonic_ns()
        if now_ns >= self._clock_due_ns:
            self._publish_clock(min(self._pace.bag_ns(now_ns), latest_bag_ns), now_ns)

    def _publish_clock(self, bag_ns: int, now_ns: int) -> None:
        if self._clock is not None:
            stands = bag_ns == self._told_ns
            self._told_ns = bag_ns
            self._clock.publish(Clock(clock=to_time(bag_ns)))
            self._clock_due_ns = now_ns + max(
                self._clock_period_ns, STANDING_CLOCK_NS if stands else 0)

    # Telling.

    def _tell_gap(self, topic: str, bag_ns: int) -> None:
        wait_ns = self._pace.wait_ns(bag_ns, time.monotonic_ns())
        if wait_ns is not None and wait_ns > LONG_NS:
            self.get_logger().warning(
                f"the next message, on {topic}, is {wait_ns / 1e9:.0f} s away.")

    def _tell_losses(self, recording: Recording, told: int) -> int:
        for sentence in recording.losses[told:]:
            self.get_logger().warning(f"{sentence}.")
        return len(recording.losses)

    def _report(self, publishers, started_ns: int) -> None:
        took_s = (time.monotonic_ns() - started_ns) / 1e9
        publishers.flush()
        self.get_logger().info(
            f"played {self._played.total()} messages on {len(self._played)} topics in "
            f"{took_s:.1f} s, at most {self._latest_ns / 1e6:.0f} ms late"
            + (f"; {publishers.skipped_count} messages were skipped" if publishers.skipped else "")
        )


def main() -> int:
    """Exit code 0 at the end of the bag or after a signal, 1 where nothing of it can be played,
    2 for a bad parameter or what is no bag."""
    stop = threading.Event()
    catch_stop_signals()
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = PlayerNode(stop)

        def end(_name: str) -> None:
            stop.set()
            node.wake()

        on_stop_signal(end)
        try:
            return node.play()
        finally:
            node.destroy_node()
    except Exception as error:
        return refused("player", error)
    finally:
        rclpy.try_shutdown()
