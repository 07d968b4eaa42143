"""Scripted experts in this project's units of action."""

from __future__ import annotations

import warnings

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from deer_ros.sim.ball_tasks import THREE_BALLS
from deer_ros.sim.balls import BallExpert
from deer_ros.sim.task import Request


class ScriptedExpert:
    """The scripted expert of an environment, asked for something. It sees all, goal included."""

    def __init__(self, environment: str, request: Request) -> None:
        if environment == THREE_BALLS:
            self._policy = BallExpert(request.choice)
        else:
            self._policy = ENV_POLICY_MAP[environment]()

    def action(self, observation: np.ndarray) -> tuple[np.ndarray, float]:
        """What the expert does.

        Args:
            observation: Meta-World's full observation, float64 (39,).

        Returns:
            Pose action, float32 (6,) in -1..1, and gripper, -1.0 close or +1.0 open.
        """
        with warnings.catch_warnings():
            # The experts ask for more than the arm's speed and warn that they rely on clipping.
            warnings.simplefilter("ignore", UserWarning)
            dx, dy, dz, effort = self._policy.get_action(observation)
        pose = np.zeros(6, dtype=np.float32)
        pose[:3] = np.clip([dx, dy, dz], -1.0, 1.0)
        return pose, -1.0 if effort > 0 else 1.0
