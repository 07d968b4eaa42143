"""The gate learns how far every exit's pose is from full depth's.

The target comes from the model itself, so no demonstrated action is needed: of every step of a
window, all exits answer from one recurrent state, which is carried on along exits drawn at random,
as the shared head was trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deer_ros.model.action_head import HeadOutput
from deer_ros.model.deer import DeerModel
from deer_ros.training.policy_phase import features_of
from deer_ros.training.windows import Batch

ALIKE = 1e-3
"""Differences far below this one count as equal: no motion of a robot tells them apart."""


class GateTraining(nn.Module):
    """A model of which only the head's gate learns. It answers as at run time."""

    def __init__(self, model: DeerModel) -> None:
        super().__init__()
        self.model = model

    def train(self, mode: bool = True) -> GateTraining:
        """Dropout is the gate's alone: the poses that are compared are those of run time."""
        super().train(False)
        self.model.head.gate.train(mode)
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Mean squared error of the guesses' logarithms, of every exit but the deepest.

        It is least where the guess is the differences' geometric mean. Times the batch's share.
        """
        head = self.model.head
        with torch.no_grad():
            features = features_of(self.model, batch)
        exits, windows, steps = features.shape[:3]
        drawn = torch.from_numpy(batch.samplings[0]).to(features.device)
        across = torch.arange(windows, device=features.device)
        state = head.initial_state(windows)
        total = features.new_zeros(())
        for step in range(steps):
            carried = head.carry(state)
            outputs = [
                head.step(heard[:, step], state, carried, layer)
                for heard, layer in zip(features, self.model.config.exit_layers)
            ]
            squared = _squared_errors(outputs)
            total = total + squared[batch.valid[:, step]].sum()
            parts = zip(*(output.state for output in outputs))
            state = type(state)(
                *(torch.stack(p)[drawn[:, step], :, across].transpose(0, 1).detach() for p in parts)
            )
        return {"gate": batch.share * total / (batch.valid.sum() * max(1, exits - 1))}


def _squared_errors(outputs: list[HeadOutput]) -> Tensor:
    """(N, E - 1): of the guesses' logarithms, against the difference's to the last pose."""
    deepest = outputs[-1].pose
    squared = []
    for output in outputs[:-1]:
        difference = (output.pose - deepest).square().mean(dim=-1, keepdim=True).sqrt().detach()
        wanted = (difference + ALIKE).log()
        squared.append((output.expected_loss.log() - wanted).square()[:, 0, 0])
    return torch.stack(squared, dim=1) if squared else deepest.new_zeros(len(deepest), 0)
