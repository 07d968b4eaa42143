"""The whole network, run piece by piece.

`DeerModel.answers` is a generator: it computes the layers up to the next asked answer only when
its consumer asks for it, so a consumer that stops has not paid for the rest.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deer_ros.model.action_head import ActionHead, HeadOutput, HeadState
from deer_ros.model.config import DeerConfig
from deer_ros.model.language import DecoderLayer, Prompt, make_prompt
from deer_ros.model.proprioception import ProprioceptionEncoder
from deer_ros.model.vision import Resampler, build_tower


@dataclass(frozen=True)
class Answer:
    """What the head says after `layer` layers (counted from 1), and the state that would follow.

    pose: (N, 6); gripper_probability: (N, 1); expected_loss: (N, 1), or None without a gate.
    head_s: seconds spent in the head so far this step.
    """

    layer: int
    pose: Tensor
    gripper_probability: Tensor
    expected_loss: Tensor | None
    state: HeadState
    head_s: float

    @classmethod
    def of(cls, layer: int, output: HeadOutput, head_s: float) -> Answer:
        """The head's output for a single step."""
        guess = output.expected_loss
        return cls(
            layer, output.pose[:, 0], output.gripper_probability[:, 0],
            None if guess is None else guess[:, 0], output.state, head_s,
        )


class DeerModel(nn.Module):
    """Vision, language and the shared action head, with the first `max_layer` layers.

    max_layer: deepest layer to build, counted from 1; None builds all. It is rounded down to an
    exit. Weights are random until they are loaded.
    """

    def __init__(self, config: DeerConfig, max_layer: int | None = None) -> None:
        super().__init__()
        language, width = config.language, config.vision.width
        depth = config.permitted_exits(max_layer)[-1]
        self.config = config
        self.tower = build_tower(config.vision)
        self.resampler = Resampler(config.resampler, width)
        self.embedding = nn.Embedding(language.vocabulary, language.width)
        self.layers = nn.ModuleList(
            DecoderLayer(language, width, layer) for layer in range(1, depth + 1)
        )
        self.head = ActionHead(config.head, language.width, config.exit_layers)
        if config.proprioception is not None:
            self.proprioception = ProprioceptionEncoder(config.proprioception, width)

    @property
    def max_layer(self) -> int:
        """Deepest layer that is built."""
        return len(self.layers)

    def see(self, pictures: Tensor) -> Tensor:
        """Pictures (N, cameras, 3, S, S), static camera first -> latents (N, cameras * n, W)."""
        return self.resample(self.tower(pictures))

    def with_proprioception(self, latents: Tensor, values: Tensor) -> Tensor:
        """Latents of the pictures and normalised values (N, P) -> latents with one more."""
        return torch.cat([latents, self.proprioception(values)], dim=1)

    def resample(self, tokens: Tensor) -> Tensor:
        """Tower's tokens (N, cameras, P, W) -> latents (N, cameras * n, W), cameras in order."""
        latents = self.resampler(tokens.flatten(0, 1))
        return latents.unflatten(0, tokens.shape[:2]).flatten(1, 2)

    def read(self, ids: Tensor, mask: Tensor | None = None) -> Prompt:
        """Token ids (N, L) int64 -> prompt. `mask` (N, L) is 0 at padding.

        Raises ValueError for ids outside the vocabulary or without exactly one `<image>`.
        """
        rows = self.embedding.num_embeddings
        if bool(((ids < 0) | (ids >= rows)).any()):
            raise ValueError(
                f"a prompt has token ids from {int(ids.min())} to {int(ids.max())}; this model's "
                f"vocabulary has 0 to {rows - 1}."
            )
        image = self.config.prompt.image_token
        return make_prompt(ids, self.embedding(ids), self.config.language, image, mask)

    def answers(
        self, prompt: Prompt, latents: Tensor, state: HeadState, layers: Iterable[int]
    ) -> Iterator[Answer]:
        """Answers after each of `layers` (counted from 1, increasing), computed as they are asked.

        A next layer is taken from `layers` no sooner than that. All answers start from the same
        recurrent `state`; none is committed.
        """
        started = time.perf_counter()
        carried = self.head.carry(state)
        head_s = time.perf_counter() - started
        hidden, done = prompt.embedding, 0
        for layer in layers:
            for block in self.layers[done:layer]:
                hidden = block(hidden, latents, prompt)
            done = layer
            started = time.perf_counter()
            output = self.head.step(self.head.hear(hidden, layer), state, carried, layer)
            head_s += time.perf_counter() - started
            yield Answer.of(layer, output, head_s)

    def hidden_states(self, prompt: Prompt, latents: Tensor) -> list[Tensor]:
        """Output of every layer, (N, L, d) each: for training, which uses them all."""
        hidden, states = prompt.embedding, []
        for layer in self.layers:
            hidden = layer(hidden, latents, prompt)
            states.append(hidden)
        return states
