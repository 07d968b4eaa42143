"""What the recorder loses and costs: two cameras' JPEG pictures, joints, poses and actions.

This process publishes as a robot does, the recorder runs in a process of its own; then its bag is
compared with what was sent. Run it in a built workspace:

    source install/setup.bash
    python benchmarks/recording.py
    python benchmarks/recording.py --width 1280 --height 720 --seconds 60 --json
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from array import array
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage, JointState

from deer_ros.data.recording import Recording
from deer_ros.nodes.children import NodeProcess
from deer_ros.nodes.domain import isolate, reserved_domain
from deer_ros.nodes.stamps import to_time
from deer_ros.nodes.transport import prepare_for_pictures
from deer_ros.report.tables import console, table

CAMERAS = ("static", "gripper")
JOINTS_HZ = 100.0
PICTURES = 8
START_TIMEOUT_S = 60.0
LAST_WAIT_S = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=float, default=30.0, help="Hz of each camera")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    prepare_for_pictures()
    with tempfile.TemporaryDirectory() as folder, reserved_domain() as domain:
        isolate(domain)
        result = measure(arguments, Path(folder))
    if arguments.json:
        print(json.dumps(result))
    else:
        values = {"sent": "sent", "recorded": "recorded", "lost": "lost", "MB/s": "mb_per_s",
                  "CPU %": "cpu_percent", "peak MiB": "peak_mib"}
        console().print(table(
            f"{len(CAMERAS)} x {arguments.width} x {arguments.height} JPEG at "
            f"{arguments.rate:g} Hz, {arguments.seconds:g} s, and joints at {JOINTS_HZ:g} Hz",
            list(values), [[f"{result[key]:g}" for key in values.values()]]))
    return 1 if result["lost"] else 0


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Publish for a while with the recorder beside, and count."""
    rclpy.init()
    node = rclpy.create_node("robot")
    cameras = [node.create_publisher(
        CompressedImage, f"/camera/{camera}/image/compressed", qos_profile_sensor_data)
        for camera in CAMERAS]
    joints = node.create_publisher(JointState, "/joint_states", qos_profile_sensor_data)
    pictures = [picture(seed, arguments.height, arguments.width) for seed in range(PICTURES)]
    parameters = {"folder": str(folder / "bag"), "image.transport": "compressed"}
    with NodeProcess("recorder_node", parameters, folder) as recorder:
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not all(each.get_subscription_count() for each in (*cameras, joints)):
            recorder.check()
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"the recorder does not listen. {recorder.last_words()}")
            time.sleep(0.05)
        used_s, began_s = cpu_s(recorder._process.pid), time.monotonic()
        sent = publish(arguments, cameras, joints, pictures)
        time.sleep(LAST_WAIT_S)
        took_s = time.monotonic() - began_s
        used_s = cpu_s(recorder._process.pid) - used_s
        peak_mib = peak_memory_mib(recorder._process.pid)
        recorder.signal(signal.SIGINT)
        if recorder.wait(30) != 0:
            raise RuntimeError(recorder.last_words())
    rclpy.shutdown()
    with Recording(folder / "bag") as recording:
        topics = [topic for topic in recording.topics if topic != "/diagnostics"]
        messages = [len(data) for _, _, data in recording.messages(topics)]
        if recording.losses:
            raise RuntimeError("; ".join(recording.losses))
    return {
        "sent": sent,
        "recorded": len(messages),
        "lost": sent - len(messages),
        "mb_per_s": round(sum(messages) / took_s / 1e6, 2),
        "cpu_percent": round(100 * used_s / took_s, 1),
        "peak_mib": round(peak_mib),
    }


def publish(arguments: argparse.Namespace, cameras: list, joints, pictures: list[bytes]) -> int:
    """Everything at its rate; returns the number of messages."""
    state = JointState(name=[f"joint{number}" for number in range(7)], position=[0.0] * 7)
    events = [(frame / arguments.rate, frame)
              for frame in range(round(arguments.seconds * arguments.rate))]
    events += [(number / JOINTS_HZ, None) for number in range(round(arguments.seconds * JOINTS_HZ))]
    sent, began_s = 0, time.monotonic()
    for at_s, frame in sorted(events, key=lambda event: event[0]):
        time.sleep(max(0.0, began_s + at_s - time.monotonic()))
        if frame is None:
            state.header.stamp = to_time(time.time_ns())
            joints.publish(state)
            sent += 1
        else:
            for camera in cameras:
                camera.publish(pictures[frame % len(pictures)])
                sent += 1
    return sent


def picture(seed: int, height: int, width: int) -> bytes:
    """A serialised JPEG with about as much in it as a camera's."""
    small = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
    _, data = cv2.imencode(".jpg", cv2.resize(small, (width, height)))
    return serialize_message(CompressedImage(format="jpeg", data=array("B", data.tobytes())))


def cpu_s(process: int) -> float:
    """Processor time that a process has used (proc(5), stat: utime and stime)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory_mib(process: int) -> float:
    """Largest resident memory of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


if __name__ == "__main__":
    sys.exit(main())
