"""A model directory of a few thousand random parameters, for tests that need any model at all."""

from __future__ import annotations

from pathlib import Path

import torch

from deer_ros.checkpoint import save_model
from deer_ros.model.config import (
    ActionConfig,
    DeerConfig,
    ExitConfig,
    HeadConfig,
    LanguageConfig,
    ResamplerConfig,
    VisionConfig,
)
from deer_ros.model.deer import DeerModel
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.model.prompt import PromptEncoder, word_tokenizer

INSTRUCTIONS = ["open the drawer", "close the drawer", "push the puck to the goal"]


def tiny_config(**changes) -> DeerConfig:
    """Six layers, exits after 2, 4 and 6, pictures of 32 pixels, 20 Hz."""
    config = DeerConfig(
        vision=VisionConfig("conv", image_size=32, width=16, channels=(8, 16), strides=(4, 2)),
        resampler=ResamplerConfig(depth=1, latents=4, heads=2, head_dim=8, mlp_ratio=2),
        language=LanguageConfig(
            width=16, layers=6, heads=2, mlp_ratio=2, vocabulary=16,
            cross_attention_heads=2, cross_attention_head_dim=8, cross_attention_mlp_ratio=2,
        ),
        head=HeadConfig(lstm_width=16, lstm_layers=2, mlp_widths=(16,), lstm_dropout=0.0,
                        mlp_dropout=0.0),
        exits=ExitConfig(interval=2, thresholds=(0.01, 0.01, 1e8)),
        action=ActionConfig(rate_hz=20.0, linear_scale=0.04, angular_scale=0.05),
        trained_in="simulation",
        max_episode_steps=60,
    )
    return config.replace(**changes)


def write_tiny_model(folder: str | Path, seed: int = 0, **changes) -> Path:
    """Write a random model to `folder`; `changes` replace parts of its configuration."""
    torch.manual_seed(seed)
    tokenizer, prompt = word_tokenizer(INSTRUCTIONS)
    config = tiny_config(prompt=prompt, **changes)
    model = DeerModel(config)
    for layer in model.layers:
        # Closed gates would hide the pictures from the answers.
        torch.nn.init.constant_(layer.cross_attention.attention_gate, 0.5)
        torch.nn.init.constant_(layer.cross_attention.feed_forward_gate, 0.5)
    folder = Path(folder)
    save_model(folder, model, Preprocessor(32), PromptEncoder(tokenizer, prompt))
    return folder
