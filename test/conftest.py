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
# The same of a terminal that closes, under nohup: a handler is not inherited, and this one goes on.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)

if not HAS_ROS and os.environ.get("DEER_TEST_ROS") == "needed":
    raise pytest.UsageError("DEER_TEST_ROS says that ROS is needed, and there is no rclpy.")
collect_ignore = [] if HAS_ROS else ["nodes", "ros"]

# Few and long tests. A file is run by one process: begun last, the other would wait for it.
BEGUN_FIRST = ("test_bundled_model.py", "test_demo.py", "test_run.py", "test_train.py",
               "test_train_bad_data.py", "test_language.py", "test_collect.py", "test_graph.py")

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # `make test` looks for them nowhere else.
        if item.get_closest_marker("clock") and item.path.parent.name != "ros":
            raise pytest.UsageError(f"{item.nodeid} is marked `clock`, and lies outside test/ros.")
    items.sort(key=lambda item: item.path.name not in BEGUN_FIRST)


@pytest.fixture(autouse=True, scope="session")
def ros_logs_in_a_folder_of_their_own(tmp_path_factory) -> None:
    os.environ["ROS_LOG_DIR"] = str(tmp_path_factory.mktemp("ros_log"))
