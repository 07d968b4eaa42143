"""A process that ends leaves no thread of DDS behind: such threads crash it now and then."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deer_ros.nodes.domain import reserved_domain

START = """
import sys
from pathlib import Path

from deer_ros.nodes.executable import start

name = sys.argv[1]
assert start(name) == 2
left = [task.joinpath("comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
# The watchdog of shared memory is the process's own, and nobody sends to it.
print([thread for thread in left if thread.startswith("dds") and thread != "dds.shm.wdog"])
"""


@pytest.mark.parametrize("name, parameter", [
    ("player_node", "bag:=/no/such/bag"),  # refused when it is to be played
    ("player_node", "rate:=0.0"),  # by the constructor
    ("recorder_node", "file_duration:=0.0"),
    ("sim_node", "task:=no-such-task"),
])
def test_a_refused_start_leaves_no_thread_of_dds(name, parameter):
    command = [sys.executable, "-c", START, name, "--ros-args", "-p", parameter]
    with reserved_domain() as domain:
        ended = subprocess.run(command, env=os.environ | {"ROS_DOMAIN_ID": str(domain)},
                               capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[-1] == "[]"
