"""How many camera pictures reach another process, with this package's Fast DDS profile and without.

The simulated robot publishes in a process of its own; this process subscribes with ROS defaults and
the policy node's quality of service. Run it in a built workspace:

    source install/setup.bash
    python benchmarks/image_delivery.py
    python benchmarks/image_delivery.py --width 1280 --height 720 --seconds 20 --json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image

from deer_ros.nodes.children import NodeProcess
from deer_ros.nodes.domain import isolate, reserved_domain
from deer_ros.nodes.stamps import to_nanoseconds
from deer_ros.nodes.transport import PROFILE_VARIABLES
from deer_ros.report.tables import console, table

CAMERAS = ("static", "gripper")
START_TIMEOUT_S = 60.0
# Pictures that are on their way when the time is over.
LAST_WAIT_S = 1.0
# A profile of its own, with nothing in it, is how a child is kept from taking the package's.
FAST_DDS_DEFAULTS = '<dds xmlns="http://www.eprosima.com"><profiles></profiles></dds>\n'


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=float, default=30.0, help="Hz of each camera")
    parser.add_argument("--render-scale", type=float, default=0.2,
                        help="part of the size that is really drawn, to spare the processor "
                             "(default: %(default)s)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    for variable in PROFILE_VARIABLES:
        os.environ.pop(variable, None)
    with tempfile.TemporaryDirectory() as folder, reserved_domain() as domain:
        isolate(domain)
        defaults = Path(folder, "defaults.xml")
        defaults.write_text(FAST_DDS_DEFAULTS)
        results = {"with the profile": measure(arguments, Path(folder), None),
                   "Fast DDS defaults": measure(arguments, Path(folder), defaults)}
    if arguments.json:
        print(json.dumps(results))
    else:
        print_table(arguments, results)
    return 0


def measure(arguments: argparse.Namespace, folder: Path, profile: Path | None) -> dict:
    """Pictures taken by each camera and received here. profile: the publisher's; None: shipped."""
    parameters = {"image_width": arguments.width, "image_height": arguments.height,
                  "camera_rate": arguments.rate, "render_scale": arguments.render_scale}
    overrides = dict.fromkeys(PROFILE_VARIABLES, str(profile)) if profile else {}
    with NodeProcess("sim_node", parameters, folder, overrides) as simulator:
        stamps = receive(arguments.seconds, simulator)
    period_ns = round(1e9 / arguments.rate)
    first_ns = min(map(min, stamps.values()))
    last_ns = first_ns + int(arguments.seconds * 1e9)
    return {"published": int(arguments.seconds * 1e9) // period_ns + 1} | {
        camera: sum(first_ns <= stamp <= last_ns for stamp in seen)
        for camera, seen in stamps.items()}


def receive(seconds: float, simulator: NodeProcess) -> dict[str, set[int]]:
    """Stamps of what arrives, for a while from the first picture on."""
    context = rclpy.Context()
    rclpy.init(context=context)
    node = rclpy.create_node("image_delivery", context=context)
    executor = rclpy.executors.SingleThreadedExecutor(context=context)
    executor.add_node(node)
    stamps: dict[str, set[int]] = {camera: set() for camera in CAMERAS}
    qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    for camera, seen in stamps.items():
        node.create_subscription(
            Image, f"camera/{camera}/image",
            lambda image, seen=seen: seen.add(to_nanoseconds(image.header.stamp)), qos)
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not all(stamps.values()):
        simulator.check()
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"no pictures of both cameras within {START_TIMEOUT_S:.0f} s")
        executor.spin_once(timeout_sec=0.1)
    end_s = time.monotonic() + seconds + LAST_WAIT_S
    while time.monotonic() < end_s:
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    rclpy.shutdown(context=context)
    return stamps


def print_table(arguments: argparse.Namespace, results: dict[str, dict]) -> None:
    title = (f"{arguments.width}x{arguments.height} at {arguments.rate:g} Hz, two cameras, "
             f"{arguments.seconds:g} s")
    rows = [(name, str(result["published"]), *(str(result[camera]) for camera in CAMERAS))
            for name, result in results.items()]
    console().print(table(title, ("publisher", "due", *CAMERAS), rows))


if __name__ == "__main__":
    sys.exit(main())
