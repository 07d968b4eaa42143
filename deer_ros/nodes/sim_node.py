"""Node `simulated_robot`: Meta-World's arm, its two cameras and its joints, on ROS topics.

Real time (default): it obeys `deer/twist` and `deer/gripper` as MoveIt Servo does. Lockstep: it
waits for each `deer/action`. Everything runs in one thread, since MuJoCo draws only in the thread
that made the renderer.
"""

from __future__ import annotations

import threading

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from deer_ros.nodes.executable import refused, spin_once
from deer_ros.nodes.policy.stop_signals import catch_stop_signals, on_stop_signal
from deer_ros.nodes.simulator import parameters
from deer_ros.nodes.simulator.episode import SimEpisode
from deer_ros.nodes.simulator.lockstep import Lockstep
from deer_ros.nodes.simulator.outputs import SimOutputs
from deer_ros.nodes.simulator.real_time import RealTime
from deer_ros.sim.robot import SimulatedRobot


class SimulatedRobotNode(Node):
    """ValueError for a bad parameter, OSError where nothing can be drawn."""

    def __init__(self):
        super().__init__("simulated_robot")
        parameters.declare(self)
        height, width = self._value("image_height"), self._value("image_width")
        scale = self._value("render_scale")
        self._robot = SimulatedRobot(round(height * scale), round(width * scale))
        self._outputs = SimOutputs(self, self._robot, self._value("frame_id"), height, width)
        episode = SimEpisode(self._robot, self._outputs, self._max_episode_steps)
        self._pace = (
            Lockstep(self, self._robot, self._outputs, episode) if self._value("lockstep") else
            RealTime(self, self._robot, self._outputs, episode, self._value("frame_id"),
                     lambda: self._value("camera_rate")))
        self.create_service(Trigger, "~/reset", self._on_reset)
        self._reset()
        self.get_logger().info(f"ready, {'lockstep' if self._value('lockstep') else 'real time'}")

    def work(self) -> float:
        """Lets the world go on; returns the seconds until it should be called again."""
        return self._pace.work()

    def report(self) -> None:
        """Says how the episode's pictures went."""
        self.get_logger().info(self._pace.report())

    def _value(self, name: str):
        return self.get_parameter(name).value

    def _max_episode_steps(self) -> int:
        return self._value("max_episode_steps") or self._robot.max_episode_steps

    def _reset(self) -> str:
        task, seed = self._value("task"), self._value("seed")
        self._robot.reset(task, seed)
        self._outputs.publish_instruction()
        self._pace.restart(seed)
        return f"{task}, seed {seed}: {self._robot.instruction}"

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.report()
        try:
            response.message = self._reset()
            response.success = True
        except (ValueError, OSError) as error:
            response.message = str(error)
        return response


def main() -> int:
    """Exit code 0 after a signal, 2 for a bad parameter or where nothing can be drawn."""
    stop = threading.Event()
    catch_stop_signals()
    on_stop_signal(lambda _name: stop.set())
    try:
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        node = SimulatedRobotNode()
    except Exception as error:
        return refused("simulated_robot", error)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        spin_once(executor, node, node.work())
    node.report()
    node.destroy_node()
    rclpy.shutdown()
    return 0

