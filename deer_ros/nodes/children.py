"""Nodes run as child processes, each with a log file, none of them left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

GRACE_S = 5.0
TAIL_LINES = 12
# In a child's environment: its input is a pipe that closes when its parent is no more.
WATCHES_PARENT = "DEER_ROS_WATCHES_PARENT"


class ChildDied(RuntimeError):
    """A sentence with the exit code, and the last lines of the child's log."""


class NodeProcess:
    """One of this package's nodes, with ROS parameters; a context manager that always ends it.

    It ends too where this process is killed, which leaves no context.

    name: of the executable. parameters: as JSON would hold them. They and the log are written into
    `folder`. environment: on top of this process's own.
    """

    def __init__(self, name: str, parameters: dict, folder: Path,
                 environment: dict[str, str] | None = None):
        self.name = name
        self._environment = environment or {}
        self.log = folder / f"{self.name}.log"
        self._parameters = folder / f"{self.name}.yaml"
        # JSON is YAML, and keeps a path that looks like a number a text.
        content = {"/**": {"ros__parameters": parameters}}
        self._parameters.write_text(json.dumps(content, indent=2) + "\n")
        self._command = [sys.executable, "-m", "deer_ros.nodes", name,
                         "--ros-args", "--params-file", str(self._parameters)]
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> NodeProcess:
        with open(self.log, "wb") as log:
            # In a session of its own: a Ctrl-C reaches this process only, which ends the others.
            self._process = subprocess.Popen(
                self._command, env=os.environ | self._environment | {WATCHES_PARENT: "1"},
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True)
        return self

    def __exit__(self, *_exception) -> None:
        self.stop()

    def check(self) -> None:
        """ChildDied if it runs no more."""
        code = self._process.poll()
        if code is not None:
            raise ChildDied(f"{self.name} ended with exit code {code}. {self.last_words()}")

    def last_words(self) -> str:
        """The end of the log, for people."""
        lines = self.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        indented = "\n".join(f"  {line}" for line in lines) or "  (none)"
        return f"Last words of {self.name} ({self.log}):\n{indented}"

    def signal(self, wanted: signal.Signals) -> None:
        self._process.send_signal(wanted)

    def wait(self, timeout_s: float) -> int:
        """The exit code; subprocess.TimeoutExpired where there is none in time."""
        return self._process.wait(timeout_s)

    def stop(self) -> None:
        """Asks, then kills. Does nothing where it has ended already."""
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
            try:
                self.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process.stdin.close()


def end_with_parent() -> None:
    """In a NodeProcess: from now on this process ends when the one that started it has."""
    if os.environ.pop(WATCHES_PARENT, None) is not None:
        threading.Thread(target=_wait_for_parents_end, name="parent", daemon=True).start()


def _wait_for_parents_end() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    # As `stop` does.
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)
