"""A gate learns by how much an exit lowers the chance of success, from what came of exits.

An episode tells of the exit that was taken in it from some step on to the end: whether it failed.
Along full depth, it tells every exit whether full depth fails from there. Both chances are learned
at once, by maximum likelihood, with

    P(success | exit) = P(success | full depth) (1 - P(exit spoils it)).

Choosing some steps by one rule and the rest by another, and learning from the end what the change
was worth, is roll-in and roll-out of learning to search (Chang et al. 2015).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from deer_ros.data.outcomes import Outcomes
from deer_ros.model.action_head import SuccessGate

Drawn = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, float]


class PracticeTraining(nn.Module):
    """A gate that learns from `Outcomes`."""

    def __init__(self, gate: SuccessGate) -> None:
        super().__init__()
        self.gate = gate

    def forward(
        self, read: Tensor, poses: Tensor, layers: Tensor, at_full_depth: Tensor, failed: Tensor,
        share: float,
    ) -> dict[str, Tensor]:
        """Mean negative log-likelihood of the n outcomes, as `Outcomes` has them, times `share`."""
        lost, spoiled = self.gate.scores(read, poses, layers).unbind(dim=-1)
        success = logsigmoid(-lost) + logsigmoid(-spoiled).masked_fill(at_full_depth, 0.0)
        # Below zero, so that the logarithm of its complement stays finite.
        failure = torch.log(-torch.expm1(success.clamp(max=-1e-6)))
        return {"practice": -share * torch.where(failed, failure, success).mean()}


class OutcomeBatches:
    """Batches of answers, of which `rank` of `world` processes gets its share.

    Episodes count alike, however many steps they took: those that fail are the longest, and by
    steps they would be most of what there is.
    """

    def __init__(self, outcomes: Outcomes, rank: int = 0, world: int = 1) -> None:
        self.outcomes, self.rank, self.world = outcomes, rank, world
        of_episode = np.bincount(outcomes.episodes)
        self._chances = 1 / of_episode[outcomes.episodes]
        self._chances /= self._chances.sum()

    def draw(self, rng: np.random.Generator, size: int) -> Drawn:
        """Arguments of `PracticeTraining`: `size` answers of all processes together."""
        rows = rng.choice(len(self.outcomes), size, p=self._chances)
        mine = rows[self.rank :: self.world]
        drawn = self.outcomes.of(mine)
        tensors = (drawn.read, drawn.poses, drawn.layers, drawn.at_full_depth, drawn.failed)
        return *map(torch.from_numpy, tensors), len(mine) * self.world / size


def split(outcomes: Outcomes, holdout: float, seed: int) -> tuple[Outcomes, Outcomes]:
    """For learning, and a share of the episodes, one at least, for validation.

    Raises ValueError where there are fewer than two.
    """
    episodes = np.unique(outcomes.episodes)
    if len(episodes) < 2:
        raise ValueError(
            f"practice tells of exits in {len(episodes)} episodes, as others had ended before; "
            "learning and validation need two. Raise practice.episodes."
        )
    count = max(1, round(holdout * len(episodes)))
    held = np.random.default_rng(seed).permutation(episodes)[:count]
    aside = np.isin(outcomes.episodes, held)
    return outcomes.of(~aside), outcomes.of(aside)
