"""The policy node with a model that fails on request. Started by test/policy_client.py.

The instruction says what the model does: `think long` (half a second of real work), `answer nan`,
`answer inf`, `fail`; anything else is answered by the model in the directory. END_AFTER_GOAL in
the environment: the node begins to end when its goal has just ended.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time

import numpy as np

from deer_ros.nodes.policy_node import PolicyNode, main
from deer_ros.nodes.transport import use_shipped_profile
from deer_ros.stepping.loading import load_policy

LONG_S = 0.5


class Obedient:
    """Everything is the policy's own but `step`."""

    def __init__(self, settings):
        self._policy = load_policy(settings)

    def __getattr__(self, name):
        return getattr(self._policy, name)

    def step(self, observation, instruction, **options):
        if instruction == "fail":
            raise RuntimeError("as was asked")
        if instruction == "think long":
            _work(LONG_S)
        step = self._policy.step(observation, instruction, **options)
        if instruction.startswith("answer "):
            action = step.action.copy()
            action[4] = float(instruction.removeprefix("answer "))
            step = dataclasses.replace(step, action=action)
        return step


class AfterGoal(threading.Event):
    """Set by the callback that ends the goal, so that no other callback runs in between."""

    def __init__(self, goals):
        super().__init__()
        self._asked, self._watch = False, goals.watch
        goals.watch = self.watch

    def set(self):
        self._asked = True

    def watch(self):
        asked = self._asked
        self._watch()
        if asked:
            super().set()


def make_node() -> PolicyNode:
    node = PolicyNode(load=Obedient)
    if "END_AFTER_GOAL" in os.environ:
        node.stopping = AfterGoal(node._goals)
    return node


def _work(duration_s: float) -> None:
    """As a model does: one product after the other, each of them outside of Python."""
    matrix = np.ones((200, 200), np.float32)
    end_s = time.monotonic() + duration_s
    while time.monotonic() < end_s:
        matrix @ matrix


if __name__ == "__main__":
    # As libraries do when they are imported: a thread that any signal may be delivered to.
    threading.Thread(target=time.sleep, args=(1e6,), daemon=True).start()
    use_shipped_profile()
    sys.exit(main(make_node=make_node))
