"""A long run of the policy node by one command: is memory flat, the rate held, does nothing fail?

This process is a robot with two cameras, the node runs in a process of its own with the bundled
model, and every few seconds something happens to it: a pause, another instruction, a threshold, a
camera that falls silent. Exit code 1 where a promise is broken. Run it in a built workspace:

    source install/setup.bash
    python benchmarks/soak.py
    python benchmarks/soak.py --minutes 1 --json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np
import rclpy
from deer_ros.msg import PolicyStatus
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from rcl_interfaces.srv import SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from deer_ros.control.safety import State
from deer_ros.nodes.children import NodeProcess
from deer_ros.nodes.domain import isolate, reserved_domain
from deer_ros.nodes.stamps import to_time
from deer_ros.nodes.transport import prepare_for_pictures
from deer_ros.report.tables import console, table

CAMERAS = ("static", "gripper")
SIDE = 200
INSTRUCTIONS = ("reach the target", "push the puck to the goal", "open the drawer")
START_TIMEOUT_S = 120.0
# What is loaded late, and PyTorch's caches, come within this time.
WARM_UP_S = 15.0
MOST_GROWTH_MIB = 20.0
LEAST_RATE = 0.9
EVENT_EVERY_S = 5.0
END_S = 2.0


class Robot:
    """Pictures with noise at the model's rate, and a count of what comes back."""

    def __init__(self, rate_hz: float) -> None:
        self.node = rclpy.create_node("robot")
        self.statuses: dict[int, int] = {}
        self.running = 0
        self.moves = False
        self.diagnostics: dict[str, str] = {}
        self.is_silent = False
        self._random = np.random.default_rng(0)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self.node)
        self._cameras = [
            self.node.create_publisher(Image, f"camera/{name}/image", qos_profile_sensor_data)
            for name in CAMERAS]
        self.instruction = self.node.create_publisher(String, "instruction", 10)
        self.node.create_subscription(PolicyStatus, "deer/status", self._on_status, 100)
        self.node.create_subscription(TwistStamped, "deer/twist", self._on_twist, 100)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.clients = {
            "pause": self.node.create_client(SetBool, "deer/pause"),
            "reset": self.node.create_client(Trigger, "deer/reset"),
            "set": self.node.create_client(
                SetParametersAtomically, "deer/set_parameters_atomically"),
        }
        self.node.create_timer(1.0 / rate_hz, self._show)

    def spin(self, duration_s: float) -> None:
        """Play the robot for a while."""
        end_s = time.monotonic() + duration_s
        while time.monotonic() < end_s:
            self._executor.spin_once(timeout_sec=0.01)

    def call(self, name: str, request) -> None:
        """A service call; RuntimeError where no answer comes or the node refuses."""
        future = self.clients[name].call_async(request)
        end_s = time.monotonic() + 5.0
        while not future.done():
            self._executor.spin_once(timeout_sec=0.01)
            if time.monotonic() > end_s:
                raise RuntimeError(f"the service {name} has not answered for 5 s.")
        answer = future.result()
        answer = getattr(answer, "result", answer)
        if not getattr(answer, "success", getattr(answer, "successful", False)):
            raise RuntimeError(f"the service {name} was refused: {answer}")

    def _show(self) -> None:
        if self.is_silent:
            return
        stamp = to_time(self.node.get_clock().now().nanoseconds)
        for camera in self._cameras:
            pixels = self._random.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
            message = Image(height=SIDE, width=SIDE, encoding="rgb8", step=3 * SIDE,
                            data=array("B", pixels.tobytes()))
            message.header.stamp = stamp
            camera.publish(message)

    def _on_status(self, message: PolicyStatus) -> None:
        self.statuses[message.reason] = self.statuses.get(message.reason, 0) + 1
        self.running += message.state == State.RUNNING

    def _on_twist(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        values = (linear.x, linear.y, linear.z, angular.x, angular.y, angular.z)
        if not np.isfinite(values).all():
            raise RuntimeError(f"a twist is not finite: {values}")
        self.moves = any(values)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.diagnostics |= {value.key: value.value for value in status.values}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    prepare_for_pictures()
    with tempfile.TemporaryDirectory() as folder, reserved_domain() as domain:
        isolate(domain)
        rclpy.init()
        result = soak(arguments.minutes, arguments.model, Path(folder))
        rclpy.try_shutdown()
    if arguments.json:
        print(json.dumps(result))
    else:
        console().print(table("soak", ["what", "value"],
                              [[name, str(value)] for name, value in result.items()]))
    return 1 if result["broken"] else 0


def soak(minutes: float, model: str, folder: Path) -> dict[str, object]:
    """Run it; `broken` in the result names the promises that were."""
    parameters = {"model": model, "allow_simulation_model": True, "episode.max_duration": 86400.0}
    with NodeProcess("policy_node", parameters, folder) as process:
        robot = Robot(60.0)
        asked_hz = wait_until_it_runs(robot, process)
        robot.spin(WARM_UP_S)
        pid, rates, sizes = process._process.pid, [], [resident_mib(process._process.pid)]
        rng, end_s, events = random.Random(0), time.monotonic() + 60 * minutes, 0
        while time.monotonic() < end_s:
            before, began_s = robot.running, time.monotonic()
            robot.spin(EVENT_EVERY_S)
            rates.append((robot.running - before) / (time.monotonic() - began_s))
            sizes.append(resident_mib(pid))
            process.check()
            disturb(robot, rng)
            events += 1
        process.signal(signal.SIGINT)
        began_s = time.monotonic()
        code = process.wait(60)
        ended_s = time.monotonic() - began_s
        robot.spin(0.5)
        log = process.log.read_text(errors="replace")
    failures = log.count("Traceback") + log.count("a callback failed")
    result = {
        "minutes": minutes, "events": events, "steps": robot.running,
        "asked_hz": asked_hz, "median_hz": round(float(np.median(rates)), 2),
        "lowest_hz": round(min(rates), 2),
        "first_mib": round(sizes[0], 1), "last_mib": round(sizes[-1], 1),
        "growth_mib": round(sizes[-1] - sizes[0], 1), "exceptions": failures,
        "end_s": round(ended_s, 2), "exit_code": code,
    }
    promises = {
        "memory is flat": result["growth_mib"] < MOST_GROWTH_MIB,
        "the rate is held": result["median_hz"] >= LEAST_RATE * asked_hz,
        "no unhandled exception": failures == 0,
        "the last message is zero": not robot.moves,
        "it ends with 0 in time": code == 0 and ended_s < END_S,
    }
    result["broken"] = [name for name, holds in promises.items() if not holds]
    return result


def wait_until_it_runs(robot: Robot, process: NodeProcess) -> float:
    """The control rate that is asked for, Hz."""
    end_s = time.monotonic() + START_TIMEOUT_S
    while not robot.running:
        process.check()
        if time.monotonic() > end_s:
            raise RuntimeError(f"the policy makes no step. {process.last_words()}")
        robot.instruction.publish(String(data=INSTRUCTIONS[0]))
        robot.spin(0.5)
    robot.spin(2.0)
    return float(robot.diagnostics["steps per second asked"])


def disturb(robot: Robot, rng: random.Random) -> None:
    """Something that happens to a robot; afterwards it goes on."""
    kind = rng.choice(["instruction", "pause", "reset", "silence", "depth", "dry run"])
    if kind == "instruction":
        robot.instruction.publish(String(data=rng.choice(INSTRUCTIONS)))
    elif kind == "pause":
        robot.call("pause", SetBool.Request(data=True))
        robot.spin(0.3)
        robot.call("pause", SetBool.Request(data=False))
    elif kind == "reset":
        robot.call("reset", Trigger.Request())
    elif kind == "silence":
        robot.is_silent = True
        robot.spin(1.0)
        robot.is_silent = False
    elif kind == "depth":
        set_parameter(robot, "exit.max_layer", rng.choice([0, 4]))
    else:
        set_parameter(robot, "dry_run", True)
        robot.spin(0.3)
        set_parameter(robot, "dry_run", False)
    robot.spin(0.5)


def set_parameter(robot: Robot, name: str, value) -> None:
    robot.call("set", SetParametersAtomically.Request(
        parameters=[Parameter(name, value=value).to_parameter_msg()]))


def resident_mib(pid: int) -> float:
    """Memory of a process, as the kernel counts it (proc(5), statm)."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
