"""Reading and freeing layers while steps go on."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING

from rclpy.impl.rcutils_logger import RcutilsLogger

from deer_ros.nodes.policy.worker import Worker
from deer_ros.stepping.brain import Brain

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy


class Depth:
    """Keeps as many layers in memory as were asked for last.

    Files are read in a thread of their own; what was read takes effect between two steps. Until
    then steps run as deep as the layers that are there.
    """

    def __init__(
        self, policy: DeerPolicy, brain: Brain, worker: Worker, max_layer: int,
        logger: RcutilsLogger,
    ) -> None:
        """max_layer: with which the policy was loaded; 0 is all, here and in `ask`."""
        self._policy = policy
        self._brain = brain
        self._worker = worker
        self._logger = logger
        self._lock = threading.Lock()
        self._wanted = max_layer
        self._is_changing = False

    def ask(self, max_layer: int) -> None:
        """Want another depth; returns at once."""
        with self._lock:
            if max_layer == self._wanted:
                return
            self._wanted = max_layer
            if not self._is_changing:
                self._is_changing = True
                threading.Thread(target=self._change, name="depth", daemon=True).start()

    def _change(self) -> None:
        while True:
            wanted = self._wanted
            try:
                change = self._policy.load_layers(wanted or None)
                self._worker.call(partial(self._brain.adopt, change)).result()
                # It would keep its layers in memory while the next ones are read.
                del change
            except Exception as error:
                self._logger.error(f"the depth stays as it is: {error}")
            with self._lock:
                if wanted == self._wanted:
                    self._is_changing = False
                    return
