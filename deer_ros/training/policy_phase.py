"""Layers and heads learn the demonstrated actions, every exit at once (the paper's section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deer_ros.model.action_head import ActionHead, HeadOutput, pool
from deer_ros.model.deer import DeerModel
from deer_ros.model.language import Prompt
from deer_ros.training.config import PolicyPhase
from deer_ros.training.dataset import Frames
from deer_ros.training.losses import action_loss, gather_exits, split


@dataclass(frozen=True)
class Batch:
    """N windows of T steps.

    ids, masks: (N T, L), prompts, and 0 at their padding. latents: (N T, 2 n, W). actions:
    (N, T, 7). valid: (N, T) boolean, False past the end of an episode shorter than the window,
    where the last frame is repeated.
    """

    ids: Tensor
    masks: Tensor
    latents: Tensor
    actions: Tensor
    valid: Tensor


class MultiExitTraining(nn.Module):
    """The model without its vision, and one auxiliary head per exit, used only in training."""

    def __init__(self, model: DeerModel, phase: PolicyPhase) -> None:
        super().__init__()
        self.model = model
        self.phase = phase
        exits = model.config.exit_layers
        width = model.config.language.width
        self.auxiliary = nn.ModuleList(ActionHead(model.config.head, width) for _ in exits)

    def features(
        self, prompt: Prompt, latents: Tensor, mask: Tensor | None, windows: int
    ) -> Tensor:
        """Pooled features of every exit: (E, windows, steps, d).

        mask: (N T, L), tokens that count; None counts padding too, as the original does.
        """
        hidden = self.model.hidden_states(prompt, latents)
        chosen = [pool(hidden[layer - 1], mask) for layer in self.model.config.exit_layers]
        return torch.stack(chosen).unflatten(1, (windows, -1))

    def answers(
        self, features: Tensor, samplings: Sequence[np.ndarray]
    ) -> list[tuple[str, float, HeadOutput]]:
        """Every head's answers to features (E, N, T, d): what they are called, weight, output.

        The shared head along each of the `samplings` (N, T) and, if the phase says so, along every
        exit taken constantly; then the auxiliary heads, each at its exit.
        """
        phase = self.phase
        paths = [gather_exits(features, torch.from_numpy(exits)) for exits in samplings]
        paths += list(features) if phase.constant_exit_weight else []
        shared = split(self.model.head(torch.cat(paths)), len(paths))
        count = len(samplings)
        answers = [("shared", 1.0, output) for output in shared[:count]]
        answers += [("constant", phase.constant_exit_weight, output) for output in shared[count:]]
        if phase.auxiliary_weight:
            heads = zip(self.auxiliary, features)
            answers += [("auxiliary", phase.auxiliary_weight, head(f)) for head, f in heads]
        return answers

    def losses(
        self,
        features: Tensor,
        actions: Tensor,
        samplings: Sequence[np.ndarray],
        valid: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses of all heads' answers; their sum is minimised.

        features: (E, N, T, d). actions: (N, T, 7). samplings: exit numbers (N, T). valid: (N, T)
        boolean, which steps count; None where all do.
        """
        totals: dict[str, Tensor] = {}
        for name, weight, output in self.answers(features, samplings):
            parts = action_loss(output, actions, self.phase.gripper_weight, valid)
            for part, value in zip(("pose", "gripper"), parts):
                key = f"{name}_{part}"
                totals[key] = totals.get(key, 0.0) + weight * value
        return totals

    def groups(self) -> list[dict]:
        """Parameter groups of the optimiser: weight decay where the original has it."""
        phase = self.phase
        decayed, plain, heads = [], [], []
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            if name.startswith("auxiliary") or name.startswith("model.head"):
                heads.append(parameter)
            elif parameter.ndim >= 2 and (
                "cross_attention" in name or not phase.decay_gated_only
            ):
                decayed.append(parameter)
            else:
                plain.append(parameter)
        rate, head_rate = phase.learning_rate, phase.head_learning_rate
        return [
            {"params": decayed, "lr": rate, "weight_decay": phase.weight_decay},
            {"params": plain, "lr": rate, "weight_decay": 0.0},
            {"params": heads, "lr": head_rate, "weight_decay": 0.0},
        ]


class WindowBatches:
    """Windows over cached latents, with the prompts of their episodes."""

    def __init__(
        self,
        frames: Frames,
        latents: Tensor,
        prompts: dict[str, np.ndarray],
        episodes: np.ndarray,
        window: int,
        padding_token: int,
        episodes_alike: bool = False,
    ) -> None:
        self.latents, self.window = latents, window
        self.starts = frames.windows(episodes, window)
        self.actions = torch.from_numpy(frames.actions)
        self.episode_of = np.repeat(np.arange(len(frames.lengths)), frames.lengths)
        self.ends = frames.starts[1:]
        self.chance = None
        if episodes_alike:
            _, whose, windows = np.unique(
                self.episode_of[self.starts], return_inverse=True, return_counts=True
            )
            self.chance = 1 / (len(windows) * windows[whose])
        longest = max(len(ids) for ids in prompts.values())
        rows = [prompts[text] for text in frames.instructions]
        padded = [np.pad(r, (0, longest - len(r)), constant_values=padding_token) for r in rows]
        self.ids = torch.from_numpy(np.stack(padded))
        self.masks = torch.from_numpy(np.stack([np.arange(longest) < len(r) for r in rows]))

    def draw(self, rng: np.random.Generator, count: int) -> Batch:
        """`count` windows, each start, or each episode, equally likely."""
        starts = rng.choice(self.starts, size=(count, 1), p=self.chance)
        frames = starts + np.arange(self.window)
        last = self.ends[self.episode_of[starts]] - 1
        flat = torch.from_numpy(np.minimum(frames, last).reshape(-1))
        episodes = torch.from_numpy(self.episode_of[flat])
        return Batch(
            ids=self.ids[episodes],
            masks=self.masks[episodes],
            latents=self.latents[flat],
            actions=self.actions[flat].unflatten(0, (count, self.window)),
            valid=torch.from_numpy(frames <= last),
        )
