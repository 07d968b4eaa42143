"""The authors' way to gather answers: short windows, past exits drawn at random.

Of every window of W steps, with a layer drawn for each, the head runs from zero over the drawn
layers' features up to a step and there hears each exit in turn; the steps from W // 2 - 1 to W - 2
are kept. The first exit is compared with the first layer, whatever comes between (Yue et al. 2024,
the released threshold solver).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deer_ros.calibration.features import Features
from deer_ros.calibration.rollout import Rollout
from deer_ros.model.action_head import ActionHead

WINDOW = 12
REFERENCE_LAYER = 1


@torch.inference_mode()
def window_answers(
    head: ActionHead,
    features: Tensor,
    drawn: Tensor,
    reference: int,
    exits: list[int],
    layers: tuple[int, ...],
) -> Rollout:
    """Answers at the kept steps of N windows, window by window, step by step.

    features: (N, W, L, d). drawn: int64 (N, W), which of the L each step's past hears. reference,
    exits: which of the L are compared. layers: after which the L were taken. `taken` is the exit
    drawn for the step, 0 where it is none.
    """
    windows, length = drawn.shape
    across = torch.arange(windows)
    state = head.initial_state(windows)
    poses, gripper, guesses = [], [], []
    for step in range(length - 1):
        carried = head.carry(state)
        if step >= length // 2 - 1:
            outputs = [
                head.step(features[:, step, index], state, carried, layers[index])
                for index in (reference, *exits)
            ]
            poses.append(torch.stack([output.pose[:, 0] for output in outputs], 1))
            gripper.append(torch.stack([o.gripper_probability[:, 0, 0] for o in outputs], 1))
            if head.gate is not None:
                guesses.append(torch.stack([o.expected_loss[:, 0, 0] for o in outputs[1:]], 1))
        state = head.step(features[across, step, drawn[:, step]], state, carried).state
    expected = torch.stack(guesses, 1).flatten(0, 1).float().cpu().numpy() if guesses else None
    said = torch.stack(poses, 1).flatten(0, 1).float().cpu().numpy()
    probabilities = torch.stack(gripper, 1).flatten(0, 1).float().cpu().numpy()
    kept = drawn[:, length // 2 - 1 : length - 1].reshape(-1, 1) == torch.tensor(exits)
    taken = kept.int().argmax(dim=1).numpy().astype(np.int32)
    return Rollout(said[:, 1:], probabilities[:, 1:], said[:, 0], taken, expected)


def draw_windows(
    head: ActionHead, features: Features, exit_layers: tuple[int, ...], count: int, seed: int
) -> tuple[Rollout, np.ndarray]:
    """`window_answers` of up to `count` windows drawn from the episodes, and each answer's episode.

    Raises ValueError where no episode is as long as a window.
    """
    rng = np.random.default_rng(seed)
    first, episode_of = [], []
    for episode, length in enumerate(features.lengths):
        starts = features.starts[episode] + np.arange(max(0, length - WINDOW + 1))
        first.append(starts)
        episode_of.append(np.full(len(starts), episode))
    first, episode_of = np.concatenate(first), np.concatenate(episode_of)
    if not len(first):
        raise ValueError(
            f"no episode has the {WINDOW} steps of a window; the longest has "
            f"{int(features.lengths.max())}. Take longer ones, or the method run-time."
        )
    chosen = np.sort(rng.permutation(len(first))[:count])
    exits = [features.layers.index(layer) for layer in exit_layers]
    drawn = torch.from_numpy(np.array(exits)[rng.integers(len(exits), size=(len(chosen), WINDOW))])
    values = features.values[first[chosen, None] + np.arange(WINDOW)]
    reference = features.layers.index(REFERENCE_LAYER)
    answers = window_answers(head, values, drawn, reference, exits, features.layers)
    return answers, np.repeat(episode_of[chosen], WINDOW - WINDOW // 2).astype(np.int32)
