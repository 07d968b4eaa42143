"""What a step costs in multiply-adds, from the sizes in the configuration alone.

A GFLOP here is 1e9 multiply-adds of linear, convolution and attention products, each counted once,
as the DeeR paper's figures are. Norms, activations and softmax are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from deer_ros.model.config import LEARNED, DeerConfig, VisionConfig

CAMERAS = 2
GIGA = 1e9


@dataclass(frozen=True)
class CostModel:
    """Costs of one step of a model with a prompt of `prompt_tokens` tokens.

    metric: that exits are taken by; None: the model's own.
    """

    config: DeerConfig
    prompt_tokens: int
    metric: str | None = None

    @property
    def vision_gflops(self) -> float:
        """Tower and resampler, both cameras, and the robot's own state where it is read."""
        tower = tower_macs(self.config.vision)
        pictures = CAMERAS * (tower + resampler_macs(self.config))
        return (pictures + proprioception_macs(self.config)) / GIGA

    def language_gflops(self, layers: int) -> float:
        """The first `layers` layers: what the paper counts (scope `llm`)."""
        counted = range(1, layers + 1)
        return sum(layer_macs(self.config, n, self.prompt_tokens) for n in counted) / GIGA

    def head_gflops(self, calls: int) -> float:
        """`calls` answers of the head in one step, and the state's part that they share."""
        recurrent, call = head_macs(self.config)
        return (recurrent + calls * call) / GIGA

    def head_calls(self, exit_index: int) -> int:
        """Answers of the head when every exit up to this one is asked, counted from 0.

        The first is compared with one more answer, of the layer before it, where there is one and
        the metric compares.
        """
        metric = self.metric or self.config.metric
        return exit_index + 1 + (self.config.reference_layer(metric) is not None)

    def step_gflops(self, exit_index: int) -> float:
        """A whole step that asks every exit up to this one, counted from 0, and leaves there."""
        language = self.language_gflops(self.config.exit_layers[exit_index])
        return self.vision_gflops + language + self.head_gflops(self.head_calls(exit_index))

    @property
    def first_exit(self) -> int:
        """The first exit that the criterion can take, counted from 0.

        An exit after layer 1 has nothing to be compared with, where the metric compares.
        """
        exits, metric = self.config.exit_layers, self.metric or self.config.metric
        return int(exits[0] == 1 and len(exits) > 1 and metric != LEARNED)

    @property
    def fixed_gflops(self) -> float:
        """What a step costs at least: it leaves at the first exit that the criterion can take."""
        return self.step_gflops(self.first_exit)

    def exit_gflops(self, scope: str, asked: bool = True) -> np.ndarray:
        """Every exit's cost in `scope` (`llm` or `step`): (exits,).

        asked: having asked all before it; False: it alone answers.
        """
        language = [self.language_gflops(layer) for layer in self.config.exit_layers]
        if scope == "llm":
            return np.array(language)
        if scope != "step":
            raise ValueError(f"scope is {scope!r}; allowed are llm and step.")
        if asked:
            return np.array([self.step_gflops(index) for index in range(len(language))])
        return self.vision_gflops + np.array(language) + self.head_gflops(1)


def tower_macs(vision: VisionConfig) -> int:
    """One picture through the tower."""
    if vision.type == "clip":
        patches, width = vision.tokens, vision.width
        tokens = patches + 1
        block = tokens * width * width * (4 + 2 * vision.mlp_ratio) + 2 * tokens**2 * width
        return int(patches * 3 * vision.patch_size**2 * width + vision.layers * block)
    total, channels_in, side = 0, 3, vision.image_size
    for index, (channels, stride) in enumerate(zip(vision.channels, vision.strides)):
        kernel = 5 if index == 0 else 3
        side = math.ceil(side / stride)
        total += side**2 * kernel**2 * channels_in * channels
        channels_in = channels
    return total


def resampler_macs(config: DeerConfig) -> int:
    """One picture's tokens through the resampler."""
    resampler, width = config.resampler, config.vision.width
    inner, latents = resampler.heads * resampler.head_dim, resampler.latents
    keys = config.vision.tokens + latents
    attention = 2 * latents * width * inner + 2 * keys * width * inner + 2 * latents * keys * inner
    return resampler.depth * (attention + 2 * resampler.mlp_ratio * latents * width * width)


def proprioception_macs(config: DeerConfig) -> int:
    """The robot's own state to its latent; none where it is not read."""
    width = config.vision.width
    return 0 if config.proprioception is None else (config.proprioception.size + width) * width


def layer_macs(config: DeerConfig, layer: int, tokens: int) -> int:
    """One language layer, counted from 1, over a prompt of `tokens` tokens."""
    language = config.language
    width = language.width
    macs = tokens * width * width * (4 + 2 * language.mlp_ratio) + 2 * tokens**2 * width
    if language.has_cross_attention(layer):
        inner = language.cross_attention_heads * language.cross_attention_head_dim
        latents = config.latents
        macs += 2 * tokens * width * inner + 2 * latents * config.vision.width * inner
        macs += 2 * tokens * latents * inner
        macs += 2 * language.cross_attention_mlp_ratio * tokens * width * width
    return macs


def head_macs(config: DeerConfig) -> tuple[int, int]:
    """The recurrent products, once per step, and one answer of the head."""
    head = config.head
    hidden = head.lstm_width
    recurrent = head.lstm_layers * 4 * hidden * hidden
    call = 4 * hidden * (config.language.width + (head.lstm_layers - 1) * hidden)
    widths = (hidden, *head.mlp_widths)
    mlp = sum(a * b for a, b in zip(widths, widths[1:]))
    call += 2 * mlp + widths[-1] * (6 + 1)
    if head.layer_projections:
        call += config.language.width**2
    if head.gate_width is not None:
        call += (hidden + 6 + head.gate_outputs) * head.gate_width
    return recurrent, call
