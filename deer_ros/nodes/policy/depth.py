"""Reading and freeing layers while steps go on."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rclpy.impl.rcutils_logger import RcutilsLogger

from deer_ros.nodes.policy.worker import Worker
from deer_ros.stepping.brain import Brain
from deer_ros.stepping.plan import Plan

if TYPE_CHECKING:
    from deer_ros.policy import DeerPolicy


@dataclass(frozen=True)
class Wanted:
    """max_layer: None is all. memory_mib: that all weights must fit into, infinite for any."""

    max_layer: int | None
    memory_mib: float

    @classmethod
    def by(cls, plan: Plan) -> Wanted:
        """What the parameters ask for."""
        memory_mib = None if plan.budget is None else plan.budget.memory_mib
        return cls(
            plan.settings.exit_max_layer or None, math.inf if memory_mib is None else memory_mib)


class Depth:
    """Keeps as many layers in memory as were asked for last, and as fit into it.

    Files are read in a thread of their own; what was read takes effect between two steps. Until
    then steps run as deep as the layers that are there.
    """

    def __init__(
        self, policy: DeerPolicy, brain: Brain, worker: Worker, loaded: Wanted,
        logger: RcutilsLogger,
    ) -> None:
        """loaded: what the policy was loaded for."""
        self._policy = policy
        self._brain = brain
        self._worker = worker
        self._logger = logger
        self._lock = threading.Lock()
        self._wanted = loaded
        self._is_changing = False

    def ask(self, wanted: Wanted) -> None:
        """Want another depth; returns at once."""
        with self._lock:
            if wanted == self._wanted:
                return
            self._wanted = wanted
            if not self._is_changing:
                self._is_changing = True
                threading.Thread(target=self._change, name="depth", daemon=True).start()

    def _change(self) -> None:
        while True:
            wanted = self._wanted
            try:
                change = self._policy.load_layers(wanted.max_layer, wanted.memory_mib)
                self._worker.call(partial(self._brain.adopt, change)).result()
                # It would keep its layers in memory while the next ones are read.
                del change
            except Exception as error:
                self._logger.error(f"the depth stays as it is: {error}")
            with self._lock:
                if wanted == self._wanted:
                    self._is_changing = False
                    return
