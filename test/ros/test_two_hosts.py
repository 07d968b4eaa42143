"""Two policies on two hosts, made of network namespaces: one link is cut and restored."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from counts import IS_FULL
from policy_client import image
from tiny_model import write_tiny_model

pytestmark = [
    pytest.mark.robot,
    pytest.mark.clock,
    pytest.mark.skipif(not IS_FULL, reason="hosts are made by `make test-robot` only"),
]
SIDES = ("left", "right")
PREFIX = "deer"
BRIDGE = f"{PREFIX}br"
WAIT_S = 120.0


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


def may_make_hosts() -> str | None:
    """Why not, or None."""
    if shutil.which("ip") is None:
        return "there is no `ip` command (iproute2)"
    try:
        ip("netns", "add", f"{PREFIX}try")
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not permitted: {error.stderr.strip()}"
    ip("netns", "delete", f"{PREFIX}try")
    return None


@pytest.fixture
def hosts():
    """A bridge in this namespace, and a host on each of its two links."""
    why_not = may_make_hosts()
    if why_not is not None:
        pytest.skip(why_not)
    with contextlib.ExitStack() as stack:
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"bridges are not permitted: {error.stderr.strip()}")
        stack.callback(ip, "link", "delete", BRIDGE)
        ip("address", "add", "10.213.7.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number, side in enumerate(SIDES, start=2):
            host, near, far = f"{PREFIX}{side}", f"{PREFIX}n{number}", f"{PREFIX}f{number}"
            ip("netns", "add", host)
            stack.callback(ip, "netns", "delete", host)
            ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", host)
            ip("link", "set", near, "master", BRIDGE, "up")
            ip("-n", host, "address", "add", f"10.213.7.{number}/24", "dev", far)
            ip("-n", host, "link", "set", far, "up")
            ip("-n", host, "link", "set", "lo", "up")
            # Multicast, with which participants find each other, needs a route.
            ip("-n", host, "route", "add", "224.0.0.0/4", "dev", far)
        ip("route", "add", "239.255.0.0/16", "dev", BRIDGE)
        yield {side: f"{PREFIX}n{number}" for number, side in enumerate(SIDES, start=2)}


# Between hosts there is no shared memory; the robot's process speaks over the bridge alone.
PROFILE = """<?xml version="1.0" encoding="UTF-8"?>
<profiles xmlns="http://www.eprosima.com"><transport_descriptors><transport_descriptor>
<transport_id>net</transport_id><type>UDPv4</type>
<interfaceWhiteList><address>{address}</address></interfaceWhiteList>
</transport_descriptor></transport_descriptors>
<participant profile_name="p" is_default_profile="true"><rtps>
<userTransports><transport_id>net</transport_id></userTransports>
<useBuiltinTransports>false</useBuiltinTransports></rtps></participant></profiles>
"""


def environment(folder: Path, address: str) -> dict[str, str]:
    profile = folder / f"{address}.xml"
    profile.write_text(PROFILE.format(address=address))
    tests = Path(__file__).parents[1]
    return os.environ | {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(profile),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(profile),
        "ROS_DOMAIN_ID": "91", "ROS_AUTOMATIC_DISCOVERY_RANGE": "SUBNET",
        "ROS_LOCALHOST_ONLY": "",
        "PYTHONPATH": os.pathsep.join(
            [str(tests.parent), str(tests), os.environ.get("PYTHONPATH", "")]),
    }


@contextlib.contextmanager
def policies(folder: Path):
    """One on each host, each in a ROS namespace of its own."""
    model = write_tiny_model(folder / "model")
    script = Path(__file__).parents[1] / "obedient_policy_node.py"
    with contextlib.ExitStack() as stack:
        for number, side in enumerate(SIDES, start=2):
            log = stack.enter_context(open(folder / f"{side}.log", "wb"))
            process = subprocess.Popen(
                ["ip", "netns", "exec", f"{PREFIX}{side}", sys.executable, str(script),
                 "--ros-args", "-r", f"__ns:=/{side}", "-p", f"model:={model}",
                 "-p", "allow_simulation_model:=true", "-p", "instruction:=open the drawer",
                 "-p", "episode.max_duration:=3600.0"],
                env=environment(folder, f"10.213.7.{number}"), stdout=log, stderr=log)
            stack.callback(process.wait, 10)
            stack.callback(process.send_signal, signal.SIGTERM)
        yield


def test_a_cut_link_stops_its_own_robot_alone_and_is_no_harm_once_restored(
    hosts, tmp_path, monkeypatch
):
    for name, value in environment(tmp_path, "10.213.7.1").items():
        monkeypatch.setenv(name, value)
    with policies(tmp_path):
        # This process's settings of DDS are read once, when its first participant is made.
        robot = subprocess.Popen(
            [sys.executable, __file__, *SIDES], env=os.environ, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True)
        try:
            wait_for(robot, {"left": "RUNNING", "right": "RUNNING"})
            ip("link", "set", hosts["left"], "down")
            cut_s = time.monotonic()
            wait_for(robot, {"left": "SILENT", "right": "RUNNING"})
            assert time.monotonic() - cut_s < 10
            wait_for_log(tmp_path / "left.log", "stopped: the newest message on camera/")
            ip("link", "set", hosts["left"], "up")
            wait_for(robot, {"left": "RUNNING", "right": "RUNNING"})
        finally:
            robot.terminate()
            robot.wait(10)
    for side in SIDES:
        assert "Traceback" not in (tmp_path / f"{side}.log").read_text()


def wait_for(robot: subprocess.Popen, states: dict[str, str]) -> None:
    wanted = " ".join(f"{side}={state}" for side, state in states.items())
    deadline_s, line = time.monotonic() + WAIT_S, ""
    while line.strip() != wanted:
        line = robot.stdout.readline()
        assert line and time.monotonic() < deadline_s, f"waited in vain for {wanted}: {line}"


def wait_for_log(log: Path, words: str) -> None:
    deadline_s = time.monotonic() + WAIT_S
    while words not in log.read_text():
        assert time.monotonic() < deadline_s, log.read_text()
        time.sleep(0.1)


def play_robot(sides: list[str]) -> None:
    """Send pictures to each side, and print four times a second whether it moves its robot."""
    import rclpy
    from geometry_msgs.msg import TwistStamped
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import Image

    rclpy.init()
    node = rclpy.create_node("robot")
    heard_s = dict.fromkeys(sides, 0.0)
    cameras, shown = [], 0
    for side in sides:
        cameras += [node.create_publisher(Image, f"/{side}/camera/{camera}/image",
                                          qos_profile_sensor_data)
                    for camera in ("static", "gripper")]
        node.create_subscription(
            TwistStamped, f"/{side}/deer/twist",
            lambda _message, side=side: heard_s.update({side: time.monotonic()}), 10)

    def show() -> None:
        nonlocal shown
        shown += 1
        message = image(100 + shown % 3)
        message.header.stamp = node.get_clock().now().to_msg()
        for camera in cameras:
            camera.publish(message)
        if shown % 5 == 0:
            states = {side: "RUNNING" if time.monotonic() - at < 1.0 else "SILENT"
                      for side, at in heard_s.items()}
            print(" ".join(f"{side}={state}" for side, state in states.items()), flush=True)

    node.create_timer(0.05, show)
    rclpy.spin(node)


if __name__ == "__main__":
    play_robot(sys.argv[1:])
