"""Configurations of the authors' models: what their checkpoints leave unsaid.

`official_config` reads the description of one model: a dictionary of sizes and flags, layers
counted from 0 as the authors do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from deer_ros.model.config import (
    ActionConfig,
    DeerConfig,
    ExitConfig,
    HeadConfig,
    LanguageConfig,
    PromptConfig,
    ResamplerConfig,
    VisionConfig,
)
from deer_ros.model.prompt import END_OF_CHUNK, END_OF_TEXT, IMAGE, PADDING

# CALVIN's relative actions: position and Euler increments of the target, in the robot's base frame.
CALVIN = ActionConfig(
    rate_hz=30.0,
    frame="world",
    rotation="euler_xyz_increment",
    reference="target",
    linear_scale=0.02,
    angular_scale=0.05,
)


def official_config(values: Mapping[str, Any]) -> DeerConfig:
    """The configuration that a description stands for. A ValueError names a key that is missing."""
    try:
        return _config(values)
    except KeyError as error:
        raise ValueError(f"the description of the official model has no {error}.") from None


def _config(values: Mapping[str, Any]) -> DeerConfig:
    vision, llm, head = values["vision"], values["llm"], values["head"]
    cross, perceiver = values["cross_attention"], values["perceiver"]
    scalars, tokens = values["checkpoint_scalars"], values["special_tokens"]
    return DeerConfig(
        vision=VisionConfig(
            type="clip",
            image_size=vision["image_size"],
            width=vision["width"],
            patch_size=vision["patch_size"],
            layers=vision["layers"],
            heads=vision["width"] // vision["head_width"],
            mlp_ratio=float(vision["mlp_ratio"]),
        ),
        resampler=ResamplerConfig(
            depth=perceiver["depth"],
            latents=perceiver["num_latents"],
            heads=perceiver["heads"],
            head_dim=perceiver["dim_head"],
            mlp_ratio=perceiver["ff_mult"],
        ),
        language=LanguageConfig(
            width=llm["d_model"],
            layers=values["layers_kept"],
            heads=llm["n_heads"],
            mlp_ratio=llm["mlp_ratio"],
            vocabulary=llm["vocab_size"],
            qk_layer_norm=llm["attn_qk_ln"],
            alibi_bias_max=float(llm["alibi_bias_max"]),
            layer_norm_eps=llm["layer_norm_eps"],
            cross_attention_every=values["cross_attn_every_n_layers"],
            cross_attention_heads=cross["heads"],
            cross_attention_head_dim=cross["dim_head"],
            cross_attention_mlp_ratio=cross["ff_mult"],
        ),
        head=HeadConfig(
            lstm_width=head["lstm_hidden"],
            lstm_layers=head["lstm_layers"],
            lstm_layer_norm=head["lstm_layernorm"],
            mlp_widths=tuple(head["mlp_hidden"]),
            mlp_layer_norm=head["mlp_layernorm"],
            lstm_dropout=scalars["lstm_dropout"],
            mlp_dropout=scalars["exit_dropout"],
        ),
        exits=ExitConfig(interval=values["exit_interval"]),
        prompt=PromptConfig(
            image_token=tokens[IMAGE],
            end_of_chunk_token=tokens[END_OF_CHUNK],
            end_of_text_token=tokens[END_OF_TEXT],
            padding_token=tokens[PADDING],
            max_tokens=values["max_prompt_tokens"],
        ),
        action=CALVIN,
    )
