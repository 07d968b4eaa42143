"""What all tests share. On a machine without ROS, the tests of nodes are left out."""

from __future__ import annotations

import os
import signal
from importlib.util import find_spec

import hypothesis
import pytest

HAS_ROS = find_spec("rclpy") is not None

# A shell's background job ignores Ctrl-C, and so would every process that a test starts there.
signal.signal(signal.SIGINT, signal.default_int_handler)

collect_ignore = [] if HAS_ROS else ["nodes", "ros"]

# Examples that wait for a busy machine are no failures, and the same ones are tried in every run;
# `--hypothesis-profile=search` tries others.
hypothesis.settings.register_profile("deer_ros", deadline=None, derandomize=True)
hypothesis.settings.register_profile("search", deadline=None, derandomize=False)
hypothesis.settings.load_profile("deer_ros")


def pytest_report_header() -> str:
    if not HAS_ROS:
        return "ROS: none (no rclpy); test/nodes and test/ros are left out"
    names = ("ROS_DISTRO", "RMW_IMPLEMENTATION")
    return f"ROS: {', '.join(os.environ.get(name, f'{name} not set') for name in names)}"


@pytest.fixture(autouse=True, scope="session")
def ros_logs_in_a_folder_of_their_own(tmp_path_factory) -> None:
    os.environ["ROS_LOG_DIR"] = str(tmp_path_factory.mktemp("ros_log"))
