from __future__ import annotations

import os
import subprocess
import sys

import pytest

from deer_ros.cli.main import main
from deer_ros.nodes.domain import isolate, reserved_domain

NO_ROS = """
import sys
sys.modules["rclpy"] = None  # an import of it raises
from deer_ros.cli.main import main
sys.exit(main(["set", "--peak-gflops", "8"]))
"""


@pytest.mark.parametrize("arguments, words", [
    (["--scope", "layers"], "invalid choice"), (["--average-gflops", "much"], "invalid float"),
    (["--timeout", "-1"], "above 0"), (["--timeout", "nan"], "above 0"),
    (["--timeout", "soon"], "'soon' is no number of seconds"),
    (["--timeout", "1e300"], "'1e300' is no number of seconds above 0, and 86400 at most"),
    (["--speed", "8"], "--speed"), (["--preset"], "expected one argument"),
])
def test_a_wrong_argument_is_told_in_a_line(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(["set", *arguments])
    told = capsys.readouterr()
    assert end.value.code == 2 and words in told.err and told.err.count("\n") == 1
    assert not told.out


def test_without_ros_it_says_what_is_missing():
    done = subprocess.run(
        [sys.executable, "-c", NO_ROS], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("deer set: ")
    assert "needs ROS 2" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments, words", [
    (["--node", "/nobody", "--timeout", "0.5", "--peak-gflops", "8"], "has not answered for 0.5 s"),
    (["--node", "no body"], "is no name of a node"), (["--node", ""], "is no name of a node"),
    (["--node", "/d\u00e9er"], "is no name of a node"),
    (["--node", "/deer" * 60], "is no name of a node"),
])
def test_a_node_that_is_not_there_is_told_in_a_line(arguments, words, capsys, monkeypatch):
    pytest.importorskip("rclpy")
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE", "ROS_LOCALHOST_ONLY"):
        monkeypatch.setenv(name, "")  # so that all are as before at the end
    with reserved_domain() as domain:
        isolate(domain)
        before = dict(os.environ)
        assert main(["set", *arguments]) == 2
        told = capsys.readouterr()
        assert words in told.err and told.err.count("\n") == 1 and not told.out
        assert dict(os.environ) == before
