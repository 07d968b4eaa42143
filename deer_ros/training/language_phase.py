"""The layers learn what words mean before they see a picture.

Small language models have no pretraining to start from. Telling from an instruction alone what it
means gives them one; every exit is asked, so that each layer understands as much as it can. Gates
of cross-attention are closed meanwhile, and open as the layers learn to see (Alayrac et al. 2022).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from deer_ros.model.deer import DeerModel
from deer_ros.training.instructions import meanings_of, padded
from deer_ros.training.losses import meaning_loss
from deer_ros.training.policy_phase import pooled


class MeaningClassifier(nn.Module):
    """Embedding, layers and a small read-out of what was meant at every exit."""

    def __init__(self, model: DeerModel, meanings: int) -> None:
        super().__init__()
        self.model = model
        width = model.config.language.width
        self.read_outs = nn.ModuleList(
            nn.Linear(width, meanings) for _ in model.config.exit_layers
        )

    def forward(
        self, ids: Tensor, masks: Tensor, meant: Tensor, share: float = 1.0
    ) -> dict[str, Tensor]:
        """Cross-entropy, the mean over exits, times `share`.

        ids, masks: (N, L), masks 0 at padding. meant: (N,), numbers of meanings.
        """
        nothing = self.model.embedding.weight.new_zeros(len(ids), 1, self.model.config.vision.width)
        prompt = self.model.read(ids, masks)
        features = pooled(self.model, prompt, nothing, masks)
        return {"meaning": share * meaning_loss(self.read_outs, features, meant)}

    def learned(self) -> list[nn.Parameter]:
        """Of the embedding, the layers' own blocks and the read-outs."""
        blocks = [layer.block for layer in self.model.layers]
        parts = (self.model.embedding, *blocks, self.read_outs)
        return [parameter for part in parts for parameter in part.parameters()]


Drawn = tuple[Tensor, Tensor, Tensor, float]


class Sentences:
    """Instructions and what they mean, of several kinds, drawn at random.

    A kind is drawn as often as the square root of how many sentences it has: one that is said in
    many ways needs more of them, one that is said in one way must not be forgotten.
    kinds: of each, instructions and their meanings; a share of `holdout` of them is never drawn.
    encode: text to token ids (L,). meanings: how many different ones there are.
    """

    def __init__(
        self,
        kinds: Sequence[Mapping[str, str]],
        encode: Callable[[str], np.ndarray],
        padding_token: int,
        holdout: float,
        seed: int,
    ) -> None:
        numbers = meanings_of(kinds)
        self.meanings = len(set(numbers.values()))
        said = [(number, text) for number, kind in enumerate(kinds) for text in kind]
        self.ids, self.masks = padded([encode(text) for _, text in said], padding_token)
        self.meant = torch.tensor([numbers[text] for _, text in said])
        self.learned, self.held = [], []
        ways = np.sqrt([len(kind) for kind in kinds])
        self.chance = ways / ways.sum()
        rng = np.random.default_rng(seed)
        for number in range(len(kinds)):
            rows = rng.permutation([row for row, (kind, *_) in enumerate(said) if kind == number])
            kept = round(holdout * len(rows))
            self.learned.append(rows[kept:])
            self.held += rows[:kept].tolist() or rows[:1].tolist()

    def draw(
        self, rng: np.random.Generator, count: int, rank: int = 0, world: int = 1
    ) -> Drawn:
        """Arguments of `MeaningClassifier`: of `count` sentences, the share of process `rank`."""
        kinds = rng.choice(len(self.learned), count, p=self.chance)[rank::world]
        places = rng.random(count)[rank::world]
        rows = [self.learned[k][int(p * len(self.learned[k]))] for k, p in zip(kinds, places)]
        return self._rows(rows, len(rows) * world / count)

    def all_held(self) -> Drawn:
        """What is never drawn; of a kind with too few sentences for that, one that is."""
        return self._rows(self.held, 1.0)

    def _rows(self, rows: Sequence[int], share: float) -> Drawn:
        masks = self.masks[rows]
        longest = int(masks.sum(dim=1).max())
        return self.ids[rows, :longest], masks[:, :longest], self.meant[rows], share
