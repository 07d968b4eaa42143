"""The head that answers at an exit: pooled features, a stack of LSTM layers, pose and gripper.

A single step uses a cell written out here, because what the state contributes is the same at every
exit of a step: `carry` computes it once. Sequences use `torch.nn.LSTM`; both share the parameters.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from deer_ros.model.sizes import DISTANCE, SUCCESS, HeadConfig


class HeadState(NamedTuple):
    """Recurrent state between steps: `hidden` and `cell`, each (lstm layers, N, lstm width)."""

    hidden: Tensor
    cell: Tensor


class HeadOutput(NamedTuple):
    """pose (N, T, 6) in -1..1, gripper_logit (N, T, 1) of "open", and the state that follows.

    expected_loss: (N, T, 1), the gate's guess of what this exit loses against full depth; None
    where the head has no gate, or was not told the layer.
    """

    pose: Tensor
    gripper_logit: Tensor
    state: HeadState
    expected_loss: Tensor | None = None

    @property
    def gripper_probability(self) -> Tensor:
        """Probability of "open", (N, T, 1)."""
        return self.gripper_logit.sigmoid()


def pool(hidden: Tensor, mask: Tensor | None = None) -> Tensor:
    """Maximum over the tokens: (N, L, d) -> (N, d).

    Without `mask` (N, L) padded positions count too, as in the original.
    """
    if mask is not None:
        hidden = hidden.masked_fill(~mask.bool().unsqueeze(-1), torch.finfo(hidden.dtype).min)
    return hidden.amax(dim=1)


class ActionHead(nn.Module):
    """Features of width `width` to actions, with recurrent state.

    exits: the model's exit layers, from 1, the deepest last; each has its projection.
    """

    def __init__(self, config: HeadConfig, width: int, exits: Sequence[int]) -> None:
        super().__init__()
        self.config, self.exits = config, tuple(exits)
        self.projections = None
        if config.layer_projections:
            self.projections = nn.ModuleList(_identity(width) for _ in self.exits)
        widths = [width] + [config.lstm_width] * (config.lstm_layers - 1)
        self.lstm = nn.ModuleList(nn.LSTM(w, config.lstm_width, batch_first=True) for w in widths)
        self.norms = nn.ModuleList(
            nn.LayerNorm(config.lstm_width) if config.lstm_layer_norm else nn.Identity()
            for _ in widths
        )
        self.dropout = nn.Dropout(config.lstm_dropout)
        self.pose = _mlp(config, 6)
        self.gripper = _mlp(config, 1)
        self.gate = None
        if config.gate_width is not None:
            self.gate = _GATES[config.gate_guesses](config, layers=self.exits[-1])

    def initial_state(self, batch: int = 1) -> HeadState:
        """Zeros: the state of a new episode."""
        weight = self.lstm[0].weight_hh_l0
        shape = (self.config.lstm_layers, batch, self.config.lstm_width)
        return HeadState(weight.new_zeros(shape), weight.new_zeros(shape))

    def hear(self, hidden: Tensor, layer: int, mask: Tensor | None = None) -> Tensor:
        """A layer's output (N, L, d) -> the features (N, d) that the head answers to.

        layer: from 1. mask: (N, L), tokens that count; None counts padding too, as the original.
        """
        features = pool(hidden, mask)
        if self.projections is None:
            return features
        # The layer before the first exit is only compared with it: heard otherwise, it would differ
        # by what the exit's projection has learned.
        return self.projections[bisect_left(self.exits, layer)](features)

    def carry(self, state: HeadState) -> list[Tensor]:
        """What the state adds to the gates of every LSTM layer: (N, 4 width) each."""
        return [
            nn.functional.linear(h, lstm.weight_hh_l0, lstm.bias_hh_l0 + lstm.bias_ih_l0)
            for lstm, h in zip(self.lstm, state.hidden)
        ]

    def read(self, state: HeadState) -> Tensor:
        """What pose, gripper and gate read, (N, lstm width), where `state` follows from it."""
        return self.norms[-1](state.hidden[-1])

    def step(
        self, features: Tensor, state: HeadState, carried: list[Tensor], layer: int | None = None
    ) -> HeadOutput:
        """One step from `state`, whose `carry` is given: features (N, d), answers with T = 1.

        layer: after which the features were taken, from 1; the gate's guess needs it.
        """
        x, hiddens, cells = features, [], []
        for index, (lstm, norm) in enumerate(zip(self.lstm, self.norms)):
            gates = carried[index] + nn.functional.linear(x, lstm.weight_ih_l0)
            i, f, g, o = gates.chunk(4, dim=-1)
            cell = f.sigmoid() * state.cell[index] + i.sigmoid() * g.tanh()
            hidden = o.sigmoid() * cell.tanh()
            hiddens.append(hidden)
            cells.append(cell)
            x = self._between(norm(hidden), index)
        follows = HeadState(torch.stack(hiddens), torch.stack(cells))
        return self._answer(x.unsqueeze(1), follows, layer)

    def forward(self, features: Tensor) -> HeadOutput:
        """A whole sequence from a new episode's state: features (N, T, d)."""
        x, hiddens, cells = features, [], []
        for index, (lstm, norm) in enumerate(zip(self.lstm, self.norms)):
            x, (hidden, cell) = lstm(x)
            hiddens.append(hidden[0])
            cells.append(cell[0])
            x = self._between(norm(x), index)
        return self._answer(x, HeadState(torch.stack(hiddens), torch.stack(cells)))

    def _between(self, x: Tensor, index: int) -> Tensor:
        return self.dropout(x) if index < len(self.lstm) - 1 else x

    def _answer(self, x: Tensor, state: HeadState, layer: int | None = None) -> HeadOutput:
        pose = self.pose(x).tanh()
        asked = self.gate is not None and layer is not None
        guess = self.gate(x, pose, layer) if asked else None
        return HeadOutput(pose, self.gripper(x), state, guess)


class Gate(nn.Module):
    """Guesses what is lost by taking an exit instead of full depth: never below zero.

    It reads what the actions learned to use, and changes nothing of that.
    """

    def __init__(self, config: HeadConfig, layers: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(config.lstm_width + 6, config.gate_width)
        self.layer = nn.Embedding(layers, config.gate_width)
        # What exits have in common is learned first, and is not drowned in what each begins with.
        nn.init.zeros_(self.layer.weight)
        self.out = nn.Linear(config.gate_width, config.gate_outputs)
        self.dropout = nn.Dropout(config.gate_dropout)

    @property
    def decayed(self) -> list[nn.Parameter]:
        """What weight decay is for: what is read, and not how exits differ."""
        return [self.hidden.weight]

    def scores(self, x: Tensor, pose: Tensor, layer: int | Tensor) -> Tensor:
        """What the guess is made of: x (..., lstm width), pose (..., 6) to (..., outputs).

        layer: the one that both are from, from 1; of all, or one of every row of x (N, lstm width).
        """
        read = self.dropout(torch.cat([x, pose], dim=-1).detach())
        return self.out(self.dropout((self.hidden(read) + self.layer.weight[layer - 1]).relu()))


class DistanceGate(Gate):
    """Guesses the root mean square difference between an exit's pose and full depth's.

    It is learned by its logarithm: differences span two orders of magnitude, and what counts is
    which of them are small.
    """

    def forward(self, x: Tensor, pose: Tensor, layer: int) -> Tensor:
        """x (N, T, lstm width), pose (N, T, 6), both after `layer`: (N, T, 1)."""
        return self.scores(x, pose, layer).exp()


class SuccessGate(Gate):
    """Guesses by how much the chance of success falls if an exit is taken from here on.

    Two chances are learned: that full depth fails from here, and that the exit fails where full
    depth would not. Where all is lost anyway, no depth is worth its cost.
    """

    def forward(self, x: Tensor, pose: Tensor, layer: int) -> Tensor:
        """x (N, T, lstm width), pose (N, T, 6), both after `layer`: (N, T, 1)."""
        scores = self.scores(x, pose, layer)
        lost, spoiled = scores.sigmoid().chunk(2, dim=-1)
        # A score of infinity is a fault, and must not pass for certainty.
        return (1 - lost) * spoiled + 0 * scores.sum(dim=-1, keepdim=True)


_GATES: dict[str, type[Gate]] = {DISTANCE: DistanceGate, SUCCESS: SuccessGate}


def _identity(width: int) -> nn.Linear:
    """A linear layer that changes nothing before it has learned."""
    linear = nn.Linear(width, width)
    nn.init.eye_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear


def mlp_slot(layer: int, norm: bool = False) -> int:
    """Place of an MLP's linear layer (or of the norm that follows it) in its sequence, from 0."""
    return 1 + 4 * layer + norm


def _mlp(config: HeadConfig, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    width = config.lstm_width
    for hidden in config.mlp_widths:
        norm = nn.LayerNorm(hidden) if config.mlp_layer_norm else nn.Identity()
        layers += [nn.Dropout(config.mlp_dropout), nn.Linear(width, hidden), norm, nn.ReLU()]
        width = hidden
    return nn.Sequential(*layers, nn.Dropout(config.mlp_dropout), nn.Linear(width, outputs))
