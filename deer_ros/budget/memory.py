"""How many bytes of weights a policy holds, from the sizes in the configuration alone."""

from __future__ import annotations

from deer_ros.model.config import DeerConfig

MIB = 1 << 20
BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


def weights_mib(config: DeerConfig, layers: int, dtype: str) -> float:
    """Weights of a policy that has loaded the first `layers` language layers.

    They are resident while it runs, but for rows of the embedding that no instruction needs where
    weights are mapped from their file.
    """
    held = fixed_parameters(config) + sum(
        layer_parameters(config, number) for number in range(1, layers + 1)
    )
    return held * BYTES[dtype] / MIB


def fixed_parameters(config: DeerConfig) -> int:
    """All parameters but those of the language layers."""
    embedding = config.language.vocabulary * config.language.width
    return (
        tower_parameters(config) + resampler_parameters(config) + embedding
        + head_parameters(config) + proprioception_parameters(config)
    )


def tower_parameters(config: DeerConfig) -> int:
    """The vision tower: one for both cameras (`clip`), or a stack for each (`conv`)."""
    vision = config.vision
    width = vision.width
    if vision.type == "clip":
        inner = int(width * vision.mlp_ratio)
        attention = 4 * (width * width + width)
        block = attention + 2 * width * inner + inner + width + 2 * 2 * width
        patches = 3 * vision.patch_size**2 * width
        # The class token, its and the patches' positions, a norm before the blocks.
        around = width + (vision.tokens + 1) * width + 2 * width
        return patches + around + vision.layers * block
    stack, channels_in = 0, 3
    for index, channels in enumerate(vision.channels):
        kernel = 5 if index == 0 else 3
        stack += kernel**2 * channels_in * channels + 2 * channels
        channels_in = channels
    cameras = 2
    return cameras * (stack + vision.tokens * width)


def resampler_parameters(config: DeerConfig) -> int:
    """The perceiver resampler."""
    resampler, width = config.resampler, config.vision.width
    attention = 4 * width * resampler.heads * resampler.head_dim
    norms = 2 * 2 * width
    layer = attention + norms + _feed_forward(width, resampler.mlp_ratio)
    return resampler.latents * width + resampler.depth * layer + 2 * width


def proprioception_parameters(config: DeerConfig) -> int:
    """What makes a latent of the robot's own state, where it is read."""
    width = config.vision.width
    if config.proprioception is None:
        return 0
    return (config.proprioception.size + 1) * width + (width + 1) * width + 2 * width


def layer_parameters(config: DeerConfig, layer: int) -> int:
    """One language layer, counted from 1."""
    language = config.language
    width = language.width
    parameters = (4 + 2 * language.mlp_ratio) * width * width
    parameters += (4 if language.qk_layer_norm else 2) * width
    if language.has_cross_attention(layer):
        inner = language.cross_attention_heads * language.cross_attention_head_dim
        parameters += 2 * width * inner + 2 * config.vision.width * inner
        gates = 2
        parameters += 2 * width + _feed_forward(width, language.cross_attention_mlp_ratio) + gates
    return parameters


def head_parameters(config: DeerConfig) -> int:
    """The action head."""
    head = config.head
    hidden = head.lstm_width
    widths = [config.language.width] + [hidden] * (head.lstm_layers - 1)
    parameters = sum(4 * hidden * (width + hidden) + 2 * 4 * hidden for width in widths)
    if head.lstm_layer_norm:
        parameters += 2 * hidden * head.lstm_layers
    for outputs in (6, 1):
        sizes = (hidden, *head.mlp_widths)
        linear = sum(a * b + b for a, b in zip(sizes, sizes[1:])) + sizes[-1] * outputs + outputs
        norms = 2 * sum(head.mlp_widths) if head.mlp_layer_norm else 0
        parameters += linear + norms
    if head.layer_projections:
        width = config.language.width
        parameters += len(config.exit_layers) * (width + 1) * width
    if head.gate_width is not None:
        rows = hidden + 6 + 1 + config.language.layers + head.gate_outputs
        parameters += rows * head.gate_width + head.gate_outputs
    return parameters


def _feed_forward(width: int, ratio: int) -> int:
    return 2 * width + 2 * ratio * width * width
