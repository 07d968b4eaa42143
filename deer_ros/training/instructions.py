"""What episodes are told, and paraphrases of it.

An action belongs to what an instruction means, not to how it was said. Where it is known that two
instructions mean the same, an episode of one is a demonstration of the other as well, so that
nothing can be learned by heart from how a demonstration was told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def meanings_of(kinds: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """Numbers, from 0, of what instructions mean: kinds' meanings in alphabetical order.

    kinds: of each, instructions and their meanings.
    """
    meanings = sorted({meant for kind in kinds for meant in kind.values()})
    return {text: meanings.index(meant) for kind in kinds for text, meant in kind.items()}


def paraphrases_of(
    texts: set[str], kinds: Sequence[Mapping[str, str]]
) -> dict[str, list[list[str]]]:
    """For each of `texts`, kind by kind, all instructions of the same meaning.

    kinds: of each, instructions and their meanings. A text of none of them has no paraphrases.
    """
    by_meaning: dict[str, list[list[str]]] = {}
    for kind in kinds:
        of_kind: dict[str, list[str]] = {}
        for text, meant in kind.items():
            of_kind.setdefault(meant, []).append(text)
        for meant, said in of_kind.items():
            by_meaning.setdefault(meant, []).append(said)
    meanings = {text: meant for kind in kinds for text, meant in kind.items()}
    return {text: by_meaning[meanings[text]] for text in texts if text in meanings}


class Instructions:
    """Prompts of episodes, drawn from paraphrases where there are some.

    Every kind of paraphrase is equally likely, and within a kind every sentence.
    texts: one per episode. encode: text to token ids (L,). paraphrases: of `paraphrases_of`.
    meanings: numbers of what instructions mean, where that is known.
    ids, masks: (sentences, longest), of all that may be said. meant: (sentences,), their meanings,
    -1 where unknown.
    """

    def __init__(
        self,
        texts: Sequence[str],
        encode: Callable[[str], np.ndarray],
        padding_token: int,
        paraphrases: Mapping[str, Sequence[Sequence[str]]],
        meanings: Mapping[str, int] | None = None,
    ) -> None:
        more = {said for kinds in paraphrases.values() for kind in kinds for said in kind}
        sentences = sorted(more.union(texts))
        self.ids, self.masks = padded([encode(text) for text in sentences], padding_token)
        self.meant = torch.tensor([(meanings or {}).get(text, -1) for text in sentences])
        row = {text: number for number, text in enumerate(sentences)}
        self.rows = np.array([row[text] for text in texts])
        self.others = {
            row[text]: [np.array([row[said] for said in kind]) for kind in kinds]
            for text, kinds in paraphrases.items()
        }

    def draw(self, rng: np.random.Generator, episodes: np.ndarray) -> np.ndarray:
        """Rows of `ids` for the numbers of some episodes (N,), each drawn by itself."""
        rows = self.rows[episodes]
        if not self.others:
            return rows
        chances = rng.random((len(rows), 2))
        return np.array([self._one(row, *chance) for row, chance in zip(rows, chances)])

    def _one(self, row: int, which_kind: float, which: float) -> int:
        if row not in self.others:
            return row
        kinds = self.others[row]
        kind = kinds[int(which_kind * len(kinds))]
        return kind[int(which * len(kind))]


def padded(prompts: Sequence[np.ndarray], padding_token: int) -> tuple[Tensor, Tensor]:
    """Prompts (L,) of any length -> token ids (N, longest), and masks, False at their padding."""
    longest = max(map(len, prompts))
    ids = [np.pad(p, (0, longest - len(p)), constant_values=padding_token) for p in prompts]
    masks = [np.arange(longest) < len(prompt) for prompt in prompts]
    return torch.from_numpy(np.stack(ids)), torch.from_numpy(np.stack(masks))
