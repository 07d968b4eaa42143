"""Lockstep: the world waits for the policy's answer, and time is the simulator's own."""

from __future__ import annotations

import math
import time

import numpy as np
from rclpy.node import Node

from deer_ros.model.config import MOST_EXECUTIONS
from deer_ros.msg import EndEffectorAction
from deer_ros.nodes.simulator.episode import SimEpisode
from deer_ros.nodes.simulator.outputs import SimOutputs
from deer_ros.nodes.stamps import to_nanoseconds
from deer_ros.sim.robot import CONTROL_RATE_HZ, SimulatedRobot

# ROS takes a time of zero for "no clock yet".
FIRST_STAMP_NS = 1_000_000_000
# A reset takes this long in the robot's time, so that the policy sees a gap: a new episode.
RESET_NS = 1_000_000_000
# Pictures are best effort and may get lost: what nobody answered is sent again after this time.
REPEAT_S = 0.25
PERIOD_NS = round(1e9 / CONTROL_RATE_HZ)


class Lockstep:
    """A `deer/action` moves the world by the control periods that it says, and nothing else does.
    """

    def __init__(self, node: Node, robot: SimulatedRobot, outputs: SimOutputs,
                 episode: SimEpisode):
        self._robot = robot
        self._outputs = outputs
        self._episode = episode
        self._logger = node.get_logger()
        self._stamp_ns = FIRST_STAMP_NS
        self._pictures = None
        self._repeat_at_s = 0.0
        self._repeats = 0
        node.create_subscription(EndEffectorAction, "deer/action", self._answer, 10)

    def restart(self, seed: int) -> None:
        """The robot was reset."""
        self._stamp_ns += RESET_NS
        self._repeats = 0
        self._episode.restart(seed, self._stamp_ns)
        self._look()
        self._send()

    def report(self) -> str:
        """How often it had to ask again since the reset."""
        return f"pictures without an answer were sent again {self._repeats} times"

    def work(self) -> float:
        """Sends again what nobody answered; returns the seconds until more is due."""
        if time.monotonic() >= self._repeat_at_s:
            self._repeats += not self._episode.done
            self._send()
        return max(0.0, self._repeat_at_s - time.monotonic())

    def _answer(self, action: EndEffectorAction) -> None:
        if self._episode.done or to_nanoseconds(action.static_stamp) != self._stamp_ns:
            return
        moves = self._may_move(action)
        periods = 1 if action.executions > MOST_EXECUTIONS else max(1, action.executions)
        for _ in range(periods):
            # Time must go on, or the policy, which answers each stamp once, would never move again.
            self._stamp_ns += PERIOD_NS
            if moves:
                self._robot.step(np.array(action.action, np.float32), action.gripper)
                self._episode.count_step(self._stamp_ns)
                self._look()
            self._send()
            if self._episode.done:
                return

    def _may_move(self, action: EndEffectorAction) -> bool:
        if not all(map(math.isfinite, [*action.action, action.gripper])):
            self._logger.error("an action with NaN or infinity was not applied")
            return False
        if action.executions > MOST_EXECUTIONS:
            self._logger.error(f"an action for {action.executions} control periods was not "
                               f"applied; at most {MOST_EXECUTIONS} are allowed")
            return False
        return action.commanded and action.instruction == self._robot.instruction

    def _look(self) -> None:
        self._pictures = None if self._episode.done else self._robot.pictures()

    def _send(self) -> None:
        self._repeat_at_s = time.monotonic() + REPEAT_S
        if self._pictures is None:
            return
        self._outputs.publish_clock(self._stamp_ns)
        self._outputs.publish_state(self._stamp_ns)
        self._outputs.publish_pictures(self._stamp_ns, *self._pictures)
