"""Jobs that are spread over processes."""

from __future__ import annotations

import os
import signal
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
INTERRUPTED = """
import sys, time

if __name__ != "__main__" and IMPORT_S:
    print("begun", flush=True)
    time.sleep(IMPORT_S)

from deer_ros.cli.main import main
from deer_ros.evaluation.processes import run_jobs

def start():
    print("begun", flush=True)
    return time.sleep

if __name__ == "__main__":
    from deer_ros.cli import info
    info.run = lambda arguments: list(run_jobs(start, (), [600, 600], 2))
    sys.exit(main(["info"]))
"""


@pytest.mark.parametrize(("import_s", "send", "number"), [
    (0, os.killpg, signal.SIGINT),
    (600, os.killpg, signal.SIGINT),  # while they still start
    (0, os.kill, signal.SIGTERM),
])
def test_an_interrupt_ends_them_in_the_middle_of_their_jobs_without_a_word(
    tmp_path, import_s, send, number
):
    script = tmp_path / "sleepers.py"
    script.write_text(INTERRUPTED.replace("IMPORT_S", str(import_s)))
    asking = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )
    end = threading.Timer(PATIENCE_S, os.killpg, (asking.pid, signal.SIGKILL))
    end.start()
    try:
        assert [asking.stdout.readline() for _ in range(2)] == ["begun\n"] * 2
        send(asking.pid, number)
        # Their ends come when the last process that has them open is gone.
        assert asking.stderr.read() == "" and asking.stdout.read() == ""
        assert end.is_alive(), "a process lived on"
    finally:
        end.cancel()
    assert asking.wait() == 130


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
