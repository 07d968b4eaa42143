"""What ROS adds to a step: from a picture's publication to the action's, less the model's own time.

The policy node runs in a process of its own, in real time; this process publishes pictures of two
cameras and listens to `deer/action` and `deer/status`. Run it in a built workspace:

    source install/setup.bash
    python benchmarks/action_latency.py
    python benchmarks/action_latency.py --steps 1000 --executor events --json
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
import tempfile
import time
from array import array
from pathlib import Path

import numpy as np
import rclpy
from deer_ros.msg import EndEffectorAction, PolicyStatus
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from std_msgs.msg import String

from deer_ros.nodes.children import NodeProcess
from deer_ros.nodes.domain import isolate, reserved_domain
from deer_ros.nodes.stamps import to_nanoseconds
from deer_ros.nodes.transport import prepare_for_pictures
from deer_ros.report.episodes import percentile
from deer_ros.report.tables import console, number, table

SIZES = ((128, 128), (640, 480))
RATE_HZ = 20
# The first steps load libraries and fill caches.
WARM_UP_STEPS = 20
START_TIMEOUT_S = 300.0
INSTRUCTION = "open the drawer"
# Where CDR, after its own four bytes, has the stamp of a message that begins with a header.
STAMP, STAMP_OFFSET = struct.Struct("<iI"), 4


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model directory (default: the bundled model)")
    parser.add_argument("--steps", type=int, default=300, help="per size of picture")
    parser.add_argument("--executor", default="single_threaded",
                        help="of the policy node: single_threaded or events")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    prepare_for_pictures()
    parameters = {"allow_simulation_model": True, "executor": arguments.executor,
                  "exit.policy": "fixed", "episode.max_duration": 86400.0,
                  # The same pictures are sent all the time.
                  "safety.frozen_image_timeout": 0.0}
    if arguments.model:
        parameters["model"] = str(arguments.model.resolve())
    with tempfile.TemporaryDirectory() as folder, reserved_domain() as domain:
        isolate(domain)
        with NodeProcess("policy_node", parameters, Path(folder)) as policy:
            rclpy.init()
            cameras = Cameras(policy)
            results = [measure(cameras, width, height, arguments.steps) for width, height in SIZES]
            rclpy.shutdown()
    if arguments.json:
        print(json.dumps(results))
    else:
        print_table(results)
    return 0


class Cameras:
    """Publishes pairs of pictures at RATE_HZ and keeps the answers by stamp."""

    def __init__(self, policy: NodeProcess):
        self._policy = policy
        self._node = rclpy.create_node("cameras")
        self._executor = rclpy.executors.SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._publishers = [
            self._node.create_publisher(Image, f"camera/{name}/image", qos_profile_sensor_data)
            for name in ("static", "gripper")]
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._node.create_publisher(String, "instruction", latched).publish(
            String(data=INSTRUCTION))
        self.actions: dict[int, EndEffectorAction] = {}
        self.statuses: dict[int, PolicyStatus] = {}
        for kind, topic, kept in ((EndEffectorAction, "deer/action", self.actions),
                                  (PolicyStatus, "deer/status", self.statuses)):
            self._node.create_subscription(
                kind, topic,
                lambda message, kept=kept: kept.__setitem__(
                    to_nanoseconds(message.gripper_stamp), message), 100)

    def run_until(self, pictures: list[bytearray], is_done) -> None:
        """TimeoutError when that takes longer than a model may take to load."""
        deadline_s = time.monotonic() + START_TIMEOUT_S
        due_s = time.monotonic()
        while not is_done():
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"the policy did not answer:\n{self._policy.last_words()}")
            self._policy.check()
            self._publish(pictures)
            due_s = max(due_s + 1 / RATE_HZ, time.monotonic())
            while (left_s := due_s - time.monotonic()) > 0:
                self._executor.spin_once(timeout_sec=left_s)

    def _publish(self, pictures: list[bytearray]) -> None:
        for publisher, picture in zip(self._publishers, pictures):
            stamp = self._node.get_clock().now().to_msg()
            STAMP.pack_into(picture, STAMP_OFFSET, stamp.sec, stamp.nanosec)
            publisher.publish(bytes(picture))


def measure(cameras: Cameras, width: int, height: int, steps: int) -> dict:
    """Percentiles in ms over `steps` steps with pictures of that size."""
    pictures = [noise(width, height, seed) for seed in range(2)]
    before = len(cameras.actions)
    cameras.run_until(pictures, lambda: len(cameras.actions) >= before + WARM_UP_STEPS + steps)
    stamps = [stamp for stamp in sorted(cameras.actions) if stamp in cameras.statuses][-steps:]
    model_ms = [cameras.statuses[stamp].step_ms for stamp in stamps]
    added_ms = [(to_nanoseconds(cameras.actions[stamp].header.stamp) - stamp) / 1e6 - own_ms
                for stamp, own_ms in zip(stamps, model_ms)]
    return {"width": width, "height": height, "steps": len(stamps),
            "added_ms": {f"p{p}": percentile(added_ms, p) for p in (50, 95, 99)},
            "model_ms": {f"p{p}": percentile(model_ms, p) for p in (50, 95, 99)}}


def noise(width: int, height: int, seed: int) -> bytearray:
    """A picture, serialized: a camera's driver does not spend a millisecond on that in Python."""
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    picture = Image(width=width, height=height, step=3 * width, encoding="rgb8")
    picture.data = array("B", pixels.tobytes())
    return bytearray(serialize_message(picture))


def print_table(results: list[dict]) -> None:
    rows = [(f"{result['width']}x{result['height']}", str(result["steps"]),
             *(number(result["added_ms"][p]) for p in ("p50", "p95", "p99")),
             *(number(result["model_ms"][p]) for p in ("p50", "p95"))) for result in results]
    header = ("pictures", "steps", "added ms p50", "p95", "p99", "model ms p50", "p95")
    console().print(table(f"Picture to action, less the model's time, at {RATE_HZ} Hz", header,
                          rows))


if __name__ == "__main__":
    sys.exit(main())
