"""Rollouts of the head alone over gathered features, the recurrent state carried as at run time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from deer_ros.budget import criterion
from deer_ros.budget.cadence import Cadence
from deer_ros.calibration.features import Features
from deer_ros.model.action_head import ActionHead, HeadState

EVERY_STEP = Cadence()


@dataclass(frozen=True)
class Rollout:
    """What K exits answered in n steps, each from the state that the step before it left.

    poses: float32 (n, K, 6). gripper: float32 (n, K). reference_poses: float32 (n, 6) or None.
    taken: int32 (n,), number of the exit that was taken and whose state was carried on.
    expected_losses: float32 (n, K), the gate's guesses, or None where the head has no gate.
    """

    poses: np.ndarray
    gripper: np.ndarray
    reference_poses: np.ndarray | None
    taken: np.ndarray
    expected_losses: np.ndarray | None = None

    @property
    def actions(self) -> np.ndarray:
        """Pose of the exit that was taken: float32 (n, 6)."""
        return self.poses[np.arange(len(self.poses)), self.taken]

    def of(self, steps: np.ndarray) -> Rollout:
        """Some of the steps, chosen by a mask or by their numbers."""
        return Rollout(*(part if part is None else part[steps] for part in vars(self).values()))


@torch.inference_mode()
def roll_out(
    head: ActionHead,
    features: Features,
    exit_layers: tuple[int, ...],
    thresholds: np.ndarray,
    metric: str,
    cadence: Cadence = EVERY_STEP,
) -> Rollout:
    """All episodes of `features` side by side, from a new episode's state.

    exit_layers: the permitted exits, all of them among the features' layers, as the reference layer
    is where there is one. thresholds: float32 (K,), or (M, K) with a row for every episode; the
    last exit is taken in any case. cadence: which steps go by them.
    """
    exits = [features.layers.index(layer) for layer in exit_layers]
    reference = exit_layers[0] - 1
    heard = ([features.layers.index(reference)] if reference in features.layers else []) + exits
    skip = len(heard) - len(exits)
    lengths = features.lengths
    thresholds = np.broadcast_to(np.asarray(thresholds, np.float32), (len(lengths), len(exits)))

    steps = len(features.values)
    poses = np.zeros((steps, len(heard), 6), np.float32)
    gripper = np.zeros((steps, len(heard)), np.float32)
    guesses = None if head.gate is None else np.zeros((steps, len(exits)), np.float32)
    taken = np.zeros(steps, np.int32)
    state = head.initial_state(len(lengths))
    for step in range(int(lengths.max())):
        alive = np.flatnonzero(lengths > step)
        rows = features.starts[alive] + step
        inputs = features.values[rows]
        before = HeadState(*(part[:, alive] for part in state))
        carried = head.carry(before)
        outputs = [
            head.step(inputs[:, index], before, carried, features.layers[index]) for index in heard
        ]
        said = np.stack([_numpy(output.pose[:, 0]) for output in outputs], axis=1)
        poses[rows] = said
        gripper[rows] = np.stack(
            [_numpy(output.gripper_probability[:, 0, 0]) for output in outputs], axis=1
        )
        if guesses is not None:
            guesses[rows] = np.stack(
                [_numpy(output.expected_loss[:, 0, 0]) for output in outputs[skip:]], axis=1
            )
        values = criterion.values(
            said[:, skip:],
            said[:, 0] if skip else None,
            None if guesses is None else guesses[rows],
            metric,
        )
        agrees = values <= thresholds[alive]
        agrees[:, -1] = True
        chosen = agrees.argmax(axis=1)
        if not cadence.decides(step):
            decided = [exit_layers[number] for number in taken[rows - 1]]
            chosen = np.array([exit_layers.index(cadence.between(layer)) for layer in decided])
        taken[rows] = chosen
        across = np.arange(len(alive))
        for kept, parts in zip(state, zip(*(output.state for output in outputs[skip:]))):
            kept[:, alive] = torch.stack(parts)[chosen, :, across].transpose(0, 1)
    return Rollout(
        poses[:, skip:], gripper[:, skip:], poses[:, 0].copy() if skip else None, taken, guesses
    )


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
