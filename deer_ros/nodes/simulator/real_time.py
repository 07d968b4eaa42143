"""Real time: physics on the wall clock, driven by twists as MoveIt Servo drives a real arm."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float64

from deer_ros.nodes.simulator.episode import SimEpisode
from deer_ros.nodes.simulator.outputs import SimOutputs
from deer_ros.nodes.stamps import to_nanoseconds
from deer_ros.sim.robot import (
    ENVIRONMENT_RATE_HZ,
    ENVIRONMENT_STEPS_PER_CONTROL_STEP,
    SimulatedRobot,
)

# As MoveIt Servo's incoming_command_timeout.
COMMAND_TIMEOUT_NS = 100_000_000
# A reset takes a second, as a robot's way home does, in which no camera sends.
RESET_NS = 1_000_000_000
# Physics this late does not hurry after the clock any more: the machine was asleep, or the clock
# was set.
LARGEST_LAG_NS = 500_000_000
# A picture later than this many periods is dropped, as a camera on a slow bus does.
LATEST_PICTURE_PERIODS = 2
TICK_NS = round(1e9 / ENVIRONMENT_RATE_HZ)

STOPPED = np.zeros(3)
OPEN, CLOSE = 1.0, -1.0


class RealTime:
    """Physics and cameras each have a schedule; what is due is done in the order of its time.

    A picture thus shows the world as it was at the picture's stamp, even when drawing the one
    before took longer than a physics step.
    """

    def __init__(self, node: Node, robot: SimulatedRobot, outputs: SimOutputs,
                 episode: SimEpisode, frame_id: str, camera_rate_hz: Callable[[], float]):
        self._robot = robot
        self._outputs = outputs
        self._episode = episode
        self._frame_id = frame_id
        self._camera_rate_hz = camera_rate_hz
        self._clock = node.get_clock()
        self._logger = node.get_logger()

        self._velocity = STOPPED
        self._velocity_stamp_ns = 0
        self._gripper = OPEN
        self._ticks = 0
        self._next_tick_ns = 0
        self._next_picture_ns = 0
        self._pictures = 0
        self._dropped = 0

        node.create_subscription(TwistStamped, "deer/twist", self._take_twist, 1)
        # A volatile publisher matches only the first, and the policy's last word only the second.
        for durability in (DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL):
            qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE,
                             durability=durability)
            node.create_subscription(Float64, "deer/gripper", self._take_gripper, qos)

    def restart(self, seed: int) -> None:
        """The robot was reset: it stands still, and the cameras are silent for a second."""
        # The first picture makes the renderer, which must not hold up physics later.
        self._robot.pictures()
        now_ns = self._clock.now().nanoseconds
        self._velocity_stamp_ns = 0
        self._gripper = OPEN
        self._ticks = self._pictures = self._dropped = 0
        self._next_tick_ns = self._next_picture_ns = now_ns + RESET_NS
        self._episode.restart(seed, now_ns)

    def report(self) -> str:
        """How well the cameras kept their rate since the reset."""
        return f"each camera took {self._pictures} pictures and dropped {self._dropped}"

    def work(self) -> float:
        """Does what is due, up to one pair of pictures; returns the seconds until more is due."""
        now_ns = self._clock.now().nanoseconds
        self._let_lost_time_go(now_ns)
        while self._next_tick_ns <= min(now_ns, self._next_picture_ns):
            self._tick()
        if self._next_picture_ns <= now_ns:
            self._take_pictures(now_ns)
        due_ns = min(self._next_tick_ns, self._next_picture_ns)
        return max(0.0, (due_ns - self._clock.now().nanoseconds) / 1e9)

    def _tick(self) -> None:
        stamp_ns = self._next_tick_ns
        self._next_tick_ns += TICK_NS
        is_fresh = stamp_ns - self._velocity_stamp_ns <= COMMAND_TIMEOUT_NS
        self._robot.advance(self._velocity if is_fresh else STOPPED, self._gripper)
        self._outputs.publish_state(stamp_ns)
        self._ticks += 1
        if self._ticks % ENVIRONMENT_STEPS_PER_CONTROL_STEP == 0 and not self._episode.done:
            self._episode.count_step(stamp_ns)

    def _take_pictures(self, now_ns: int) -> None:
        stamp_ns = self._next_picture_ns
        period_ns = round(1e9 / self._camera_rate_hz())
        self._next_picture_ns += period_ns
        if now_ns - stamp_ns > LATEST_PICTURE_PERIODS * period_ns:
            self._dropped += 1
            self._logger.warning(
                "drawing takes longer than camera_rate allows: pictures are dropped. Lower "
                "camera_rate, image_width and image_height, or render_scale",
                throttle_duration_sec=10.0)
        else:
            self._pictures += 1
            self._outputs.publish_pictures(stamp_ns, *self._robot.pictures())

    def _let_lost_time_go(self, now_ns: int) -> None:
        lag_ns = now_ns - self._next_tick_ns
        if not -2 * RESET_NS < lag_ns < LARGEST_LAG_NS:
            self._logger.warning(f"the simulation is {lag_ns / 1e9:.2f} s behind the clock, "
                                 "and goes on from the clock's time")
            self._next_tick_ns = self._next_picture_ns = now_ns
            # After a jump back it would be one of the future, and be obeyed until then.
            self._velocity_stamp_ns = 0

    def _take_twist(self, twist: TwistStamped) -> None:
        linear = twist.twist.linear
        velocity = np.array([linear.x, linear.y, linear.z])
        stamp_ns = to_nanoseconds(twist.header.stamp)
        if twist.header.frame_id != self._frame_id:
            self._refuse(f"a twist in frame '{twist.header.frame_id}' was refused: "
                         f"this robot moves in '{self._frame_id}' (parameter frame_id)")
        elif not np.isfinite(velocity).all():
            self._refuse("a twist with NaN or infinity was refused")
        elif stamp_ns - self._clock.now().nanoseconds > COMMAND_TIMEOUT_NS:
            self._refuse("a twist of the future was refused: its sender's clock is ahead of this "
                         "one's; set both alike")
        else:
            self._velocity = velocity
            self._velocity_stamp_ns = stamp_ns

    def _take_gripper(self, opening: Float64) -> None:
        if math.isfinite(opening.data):
            self._gripper = OPEN if opening.data >= 0.5 else CLOSE
        else:
            self._refuse("a gripper command of NaN or infinity was refused")

    def _refuse(self, sentence: str) -> None:
        self._logger.warning(sentence, throttle_duration_sec=5.0)
