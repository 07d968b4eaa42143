"""Losses: of a head's answers against the demonstrated actions, of what an exit understood."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from deer_ros.model.action_head import HeadOutput


def action_loss(
    output: HeadOutput, actions: Tensor, gripper_weight: float, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Pose and weighted gripper loss, both scalars.

    actions: (N, T, 7), six pose values and the gripper, -1 close or +1 open. valid: (N, T) boolean,
    False for steps past an episode's end; None where there are none. Pose: Huber with delta 1, mean
    over values and steps. Gripper: binary cross-entropy on the logit of "open".
    """
    pose = functional.huber_loss(output.pose, actions[..., :6], reduction="none")
    opened = ((actions[..., 6:] + 1) / 2).round()
    gripper = functional.binary_cross_entropy_with_logits(
        output.gripper_logit, opened, reduction="none"
    )
    if valid is not None:
        pose, gripper = pose[valid], gripper[valid]
    return pose.mean(), gripper_weight * gripper.mean()


def meaning_loss(read_outs: Iterable[nn.Module], features: Tensor, meant: Tensor) -> Tensor:
    """Cross-entropy of what each exit says was meant, the mean over exits and N.

    read_outs: of every exit, features to scores. features: (E, N, d). meant: (N,), numbers of
    meanings; an unknown one, -1, costs nothing.
    """
    scores = torch.stack([read(exit) for read, exit in zip(read_outs, features)]).flatten(0, 1)
    asked = meant.repeat(len(features))
    total = functional.cross_entropy(scores, asked, ignore_index=-1, reduction="sum")
    return total / len(asked)


def split(output: HeadOutput, parts: int) -> list[HeadOutput]:
    """Undo a concatenation of `parts` equal batches."""
    poses, logits = output.pose.chunk(parts), output.gripper_logit.chunk(parts)
    return [HeadOutput(p, g, output.state) for p, g in zip(poses, logits)]


def gather_exits(features: Tensor, exits: Tensor) -> Tensor:
    """Features (E, N, T, d) and exit numbers (N, T) -> the chosen features (N, T, d)."""
    index = exits[None, :, :, None].expand(1, -1, -1, features.shape[-1])
    return torch.gather(features, 0, index)[0]
