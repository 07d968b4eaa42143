"""Runs episodes on the simulated robot and records what the policy did in them."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import rclpy
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from deer_ros.msg import EndEffectorAction, PolicyStatus, SimulatorEpisode
from deer_ros.nodes.stamps import to_nanoseconds
from deer_ros.report.episodes import (
    EpisodeRecord,
    PicturedEpisode,
    StepPicture,
    StepRecord,
)

SIMULATOR, POLICY = "simulated_robot", "deer"
# Loading a large model may take minutes; after the first step a minute of silence is a failure.
START_TIMEOUT_S = 300.0
STALL_TIMEOUT_S = 60.0
# The last step's status and the episode's end come on two topics, in any order.
LAST_STATUS_TIMEOUT_S = 1.0


class RunFailed(RuntimeError):
    """A sentence: what did not happen, and what the policy said last."""


class EpisodeRunner:
    """check_children is called while waiting, and raises if a process has died.

    lockstep: as the simulator. Only in real time do the stamps tell the latency.
    """

    def __init__(self, node: Node, lockstep: bool, check_children: Callable[[], None]):
        self._node = node
        self._lockstep = lockstep
        self._check_children = check_children
        self._statuses: dict[int, PolicyStatus] = {}
        self._latencies_ms: dict[int, float] = {}
        self._pictures: dict[int, np.ndarray] = {}
        self._last_status: PolicyStatus | None = None
        self._episode: SimulatorEpisode | None = None
        self._start_ns = 0
        self._set = node.create_client(SetParametersAtomically,
                                       f"{SIMULATOR}/set_parameters_atomically")
        self._reset = node.create_client(Trigger, f"{SIMULATOR}/reset")
        self._change_state = node.create_client(ChangeState, f"{POLICY}/change_state")
        reliable = QoSProfile(depth=1000, reliability=ReliabilityPolicy.RELIABLE)
        latched = QoSProfile(depth=100, reliability=ReliabilityPolicy.RELIABLE,
                             durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(PolicyStatus, "deer/status", self._take_status, reliable)
        node.create_subscription(EndEffectorAction, "deer/action", self._take_action, reliable)
        node.create_subscription(SimulatorEpisode, f"{SIMULATOR}/episode", self._take_episode,
                                 latched)
        node.create_subscription(Image, "camera/static/image", self._take_picture,
                                 qos_profile_sensor_data)

    def start(self) -> None:
        """Waits for the simulator, then configures and activates the policy. RunFailed otherwise.

        The policy's parameter `autostart` must be false.
        """
        self._wait(self._set.service_is_ready, START_TIMEOUT_S, "the simulator did not start")
        self._wait(self._change_state.service_is_ready, START_TIMEOUT_S,
                   "the policy did not start")
        for label in ("configure", "activate"):
            request = ChangeState.Request(transition=Transition(label=label))
            if not self._call(self._change_state, request, START_TIMEOUT_S).success:
                raise RunFailed(f"the policy could not {label}")

    def run(self, task: str, seed: int) -> PicturedEpisode:
        """One episode from reset to its end. RunFailed when it stands still."""
        previous = self._episode.reset if self._episode else 0
        result = self._call(self._set, SetParametersAtomically.Request(parameters=[
            Parameter("task", value=task).to_parameter_msg(),
            Parameter("seed", value=seed).to_parameter_msg(),
        ])).result
        if not result.successful:
            raise RunFailed(result.reason)
        answer = self._call(self._reset, Trigger.Request())
        if not answer.success:
            raise RunFailed(answer.message)
        self._wait(lambda: self._episode and self._episode.reset > previous, STALL_TIMEOUT_S,
                   "the simulator did not reset")
        while not self._episode.done:
            self._wait_for_a_step(self._episode.step)
        if self._lockstep:
            self._wait_for_the_last_status()
        return self._record()

    def _wait_for_a_step(self, last: int) -> None:
        self._wait(lambda: self._episode.done or self._episode.step > last, STALL_TIMEOUT_S,
                   f"the robot stood still after step {last}")

    def _wait_for_the_last_status(self) -> None:
        deadline_s = time.monotonic() + LAST_STATUS_TIMEOUT_S
        while len(self._steps()) < self._episode.step and time.monotonic() < deadline_s:
            self._spin()

    def _steps(self) -> list[int]:
        """Stamps of the steps that moved the robot in this episode, in order."""
        end_ns = to_nanoseconds(self._episode.header.stamp)
        return sorted(stamp_ns for stamp_ns, status in self._statuses.items()
                      if self._start_ns <= stamp_ns < end_ns
                      and status.instruction == self._episode.instruction)

    def _record(self) -> PicturedEpisode:
        stamps = self._steps()
        record = EpisodeRecord(
            task=self._episode.task, seed=self._episode.seed,
            instruction=self._episode.instruction, success=self._episode.success,
            steps=tuple(step_record(self._statuses[stamp], self._latencies_ms.get(stamp))
                        for stamp in stamps))
        pictures = tuple(
            StepPicture(number, self._statuses[stamp].exit_layer, self._pictures[stamp])
            for number, stamp in enumerate(stamps, start=1) if stamp in self._pictures)
        return PicturedEpisode(record, pictures)

    def _take_status(self, status: PolicyStatus) -> None:
        self._last_status = status
        if status.state == PolicyStatus.STATE_RUNNING and status.exit_layer > 0:
            self._statuses[to_nanoseconds(status.static_stamp)] = status

    def _take_action(self, action: EndEffectorAction) -> None:
        if not self._lockstep:
            published_ns = to_nanoseconds(action.header.stamp)
            static_ns = to_nanoseconds(action.static_stamp)
            newest_ns = max(static_ns, to_nanoseconds(action.gripper_stamp))
            self._latencies_ms[static_ns] = (published_ns - newest_ns) / 1e6

    def _take_episode(self, episode: SimulatorEpisode) -> None:
        if self._episode is None or episode.reset != self._episode.reset:
            self._start_ns = to_nanoseconds(episode.header.stamp)
            for records in (self._statuses, self._latencies_ms, self._pictures):
                for stamp_ns in [stamp for stamp in records if stamp < self._start_ns]:
                    del records[stamp_ns]
        self._episode = episode

    def _take_picture(self, image: Image) -> None:
        rgb = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, 3)
        self._pictures.setdefault(to_nanoseconds(image.header.stamp), rgb)

    def _call(self, client, request, timeout_s: float = STALL_TIMEOUT_S):
        future = client.call_async(request)
        self._wait(future.done, timeout_s, f"{client.srv_name} did not answer")
        return future.result()

    def _wait(self, condition: Callable[[], object], timeout_s: float, failure: str) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline_s:
                raise RunFailed(f"{failure} for {timeout_s:.0f} s; {self._last_words()}")
            self._check_children()
            self._spin()

    def _spin(self) -> None:
        rclpy.spin_once(self._node, timeout_sec=0.1)

    def _last_words(self) -> str:
        if self._last_status is None:
            return "the policy published no status"
        return f"the policy's last status: {self._last_status.detail or 'nothing said'}"


def step_record(status: PolicyStatus, latency_ms: float | None) -> StepRecord:
    step_gflops = status.vision_gflops + status.language_gflops + status.head_gflops
    return StepRecord(status.exit_layer, status.language_gflops, step_gflops, status.step_ms,
                      latency_ms)
