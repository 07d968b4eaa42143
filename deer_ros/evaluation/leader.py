"""A policy that leads demonstrations for a while: experts show the way on from where it gets.

Where a shallow exit goes astray no expert ever was: what to do there, no exit learned, deep ones
neither. Ross et al. 2011 ("A Reduction of Imitation Learning and Structured Prediction to No-Regret
Online Learning") let the policy drive and the expert say what it would have done.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from deer_ros.data.episode import columns_of
from deer_ros.evaluation.practice import drawn_exit
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.sim.robot import SimulatedRobot

LONGEST_LEAD = 2 / 3
"""Of a longest episode: by then a policy has done what it can, or stays where it is."""


class PolicyLeader:
    """Leads every episode along an exit, and for a number of steps, that are drawn at random.

    Of all exits, full depth among them, the n-th is drawn 1/n as often as the first: shallow ones
    go astray.
    """

    def __init__(self, model: str | Path | None) -> None:
        """model: as `DeerPolicy.from_pretrained`. Sets torch to one thread, for small models."""
        torch.set_num_threads(1)
        self._policy = DeerPolicy.from_pretrained(model, device="cpu")
        config = self._policy.config
        sensed, names = config.proprioception, SimulatedRobot.proprioception_names
        self._columns = None if sensed is None else columns_of(sensed.layout, names)
        self._exit_layer = config.exit_layers[-1]
        self._executions = 0

    def begin(self, robot: SimulatedRobot, rng: np.random.Generator) -> int:
        """As `Leader.begin`."""
        config = self._policy.config
        self._policy.reset()
        self._executions = 0
        self._exit_layer = drawn_exit(rng, config.exit_layers)
        return int(rng.integers(1, max(1, round(LONGEST_LEAD * config.max_episode_steps)) + 1))

    def action(
        self, robot: SimulatedRobot, pictures: tuple[np.ndarray, np.ndarray]
    ) -> tuple[np.ndarray, float]:
        """As `Leader.action`: a new one as often as the model's configuration says."""
        if self._executions == 0:
            sensed = None if self._columns is None else robot.proprioception()[self._columns]
            self._said = self._policy.step(
                Observation(*pictures, sensed), robot.instruction, self._exit_layer
            )
        self._executions = (self._executions + 1) % self._policy.config.action.executions_per_step
        return self._said.action, self._said.gripper
