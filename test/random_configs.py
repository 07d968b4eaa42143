"""Configurations of every kind and of small sizes, to draw from in property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from deer_ros.model.config import (
    DeerConfig,
    HeadConfig,
    LanguageConfig,
    PromptConfig,
    ResamplerConfig,
    VisionConfig,
)

sizes = st.integers(1, 3)
PROMPT = PromptConfig(0, 1, 2, 3)

clip_towers = st.builds(
    lambda heads, dim, patch, side, layers, ratio: VisionConfig(
        "clip", image_size=patch * side, width=heads * dim, patch_size=patch, layers=layers,
        heads=heads, mlp_ratio=float(ratio),
    ),
    sizes, st.integers(2, 5), sizes, sizes, sizes, sizes,
)
conv_towers = st.builds(
    lambda side, channels, strides: VisionConfig(
        "conv", image_size=side, width=8 * channels[-1], channels=tuple(8 * c for c in channels),
        strides=tuple(strides[: len(channels)]),
    ),
    st.integers(30, 40),
    st.lists(sizes, min_size=1, max_size=3),
    st.lists(sizes, min_size=3, max_size=3),
)
languages = st.builds(
    lambda heads, dim, layers, ratio, every, cross: LanguageConfig(
        width=heads * dim, layers=layers, heads=heads, mlp_ratio=ratio, vocabulary=8,
        cross_attention_every=every, cross_attention_heads=cross, cross_attention_head_dim=3,
        cross_attention_mlp_ratio=ratio + 1,
    ),
    sizes, st.integers(2, 4), sizes, sizes, sizes, sizes,
)
heads = st.builds(HeadConfig, lstm_width=st.integers(2, 6), lstm_layers=sizes,
                  mlp_widths=st.lists(st.integers(2, 6), min_size=1, max_size=3).map(tuple),
                  layer_projections=st.booleans(),
                  gate_width=st.none() | st.integers(1, 5),
                  gate_guesses=st.sampled_from(["distance", "success"]))
resamplers = st.builds(ResamplerConfig, depth=sizes, latents=st.integers(2, 5), heads=sizes,
                       head_dim=sizes, mlp_ratio=sizes)
configs = st.builds(
    lambda vision, resampler, language, head: DeerConfig(
        vision=vision, resampler=resampler, language=language, head=head, prompt=PROMPT
    ),
    clip_towers | conv_towers, resamplers, languages, heads,
)
