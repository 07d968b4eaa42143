"""Batches of windows over the demonstrations, for all processes of a run alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from deer_ros.training.dataset import Frames
from deer_ros.training.instructions import Instructions
from deer_ros.training.sampling import both_samplings
from deer_ros.training.shift import moves_of


@dataclass(frozen=True)
class Batch:
    """N windows of T steps.

    ids, masks: (N T, L), prompts, and 0 at their padding. meant: (N, T), the numbers of what they
    mean, -1 where unknown. vision: latents (N T, 2 n, W), or
    pictures (N T, 2, 3, S, S) that the model has to see first. proprioception: (N T, P),
    normalised, or None. actions: (N, T, 7). valid: (N, T) boolean, False past the end of an episode
    shorter than the window, where the last frame is repeated. samplings: exit numbers (N, T) for
    the shared head. share: what this process's loss counts, so that the mean over all processes is
    the whole batch's.
    """

    ids: Tensor
    masks: Tensor
    meant: Tensor
    vision: Tensor
    proprioception: Tensor | None
    actions: Tensor
    valid: Tensor
    samplings: tuple[np.ndarray, ...]
    share: float

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        moved = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


Look = Callable[[np.ndarray, np.ndarray], Tensor]
"""Frame numbers (M,) and how each picture is moved (M, cameras, 2) -> `Batch.vision`."""


class WindowBatches:
    """Windows over frames, with what their episodes are told, for process `rank` of `world`."""

    def __init__(
        self,
        frames: Frames,
        look: Look,
        instructions: Instructions,
        episodes: np.ndarray,
        window: int,
        episodes_alike: bool = False,
        exits: int = 1,
        proprioception: np.ndarray | None = None,
        shift_px: tuple[int, ...] = (0, 0),
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.look, self.window, self.exits, self.shift_px = look, window, exits, shift_px
        self.rank, self.world = rank, world
        self.instructions = instructions
        self.starts = frames.windows(episodes, window)
        self.actions = torch.from_numpy(frames.actions)
        self.sensed = None if proprioception is None else torch.from_numpy(proprioception)
        self.episode_of = np.repeat(np.arange(len(frames.lengths)), frames.lengths)
        self.ends = frames.starts[1:]
        self.chance = None
        if episodes_alike:
            _, whose, windows = np.unique(
                self.episode_of[self.starts], return_inverse=True, return_counts=True
            )
            self.chance = 1 / (len(windows) * windows[whose])

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """This process's part of `count` windows, each start, or each episode, equally likely."""
        starts = rng.choice(self.starts, size=(count, 1), p=self.chance)
        samplings = both_samplings(rng, count, self.window, self.exits)
        moves = moves_of(rng, (count, self.window), self.shift_px)
        said = self.instructions.draw(rng, self.episode_of[starts[:, 0]])
        frames = starts + np.arange(self.window)
        last = self.ends[self.episode_of[starts]] - 1
        valid = frames <= last
        mine = slice(self.rank, None, self.world)
        flat = np.minimum(frames, last)[mine].reshape(-1)
        rows = torch.from_numpy(said[mine].repeat(self.window))
        return Batch(
            ids=self.instructions.ids[rows],
            masks=self.instructions.masks[rows],
            meant=self.instructions.meant[rows].unflatten(0, (-1, self.window)),
            vision=self.look(flat, moves[mine].reshape(-1, 2, 2)),
            proprioception=None if self.sensed is None else self.sensed[flat],
            actions=self.actions[flat].unflatten(0, (-1, self.window)),
            valid=torch.from_numpy(valid[mine]),
            samplings=tuple(exits[mine] for exits in samplings),
            share=float(valid[mine].sum() * self.world / valid.sum()),
        )
