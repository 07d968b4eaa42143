"""Jobs that are spread over processes."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from deer_ros.evaluation.processes import run_jobs

PATIENCE_S = 120
SLEEPERS = """
import sys, time
from deer_ros.evaluation.processes import run_jobs

def start():
    print("begun", flush=True)
    return time.sleep

if __name__ == "__main__":
    list(run_jobs(start, (), [600, 600], 2))
"""


def test_they_end_when_whoever_asked_for_them_is_killed(tmp_path):
    script = tmp_path / "sleepers.py"
    script.write_text(SLEEPERS)
    asking = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    # A line that does not come is an empty one then.
    end = threading.Timer(PATIENCE_S, asking.kill)
    end.start()
    try:
        assert [asking.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
    finally:
        end.cancel()
        asking.kill()
    # Its end comes when nobody has it open any more.
    rest, _ = asking.communicate(timeout=60)
    assert rest == ""


@pytest.mark.parametrize("processes", [1, 2])
def test_what_is_wrong_with_their_start_is_said_as_by_one(processes):
    with pytest.raises(ValueError, match="invalid literal for int.*: 'nine'"):
        list(run_jobs(int, ("nine",), [1, 2], processes))
