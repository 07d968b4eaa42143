"""The cost model against torch's own counter, which counts two for every multiply-add.

The counter sees products only: fused attention and fused LSTMs count as nothing on a CPU, so the
tower runs with written-out attention here and the head step by step.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_model import tiny_config
from torch.utils.flop_counter import FlopCounterMode

from deer_ros.budget.cost import (
    CAMERAS,
    CostModel,
    head_macs,
    layer_macs,
    resampler_macs,
    tower_macs,
)
from deer_ros.model.config import (
    DeerConfig,
    HeadConfig,
    LanguageConfig,
    PromptConfig,
    ResamplerConfig,
    VisionConfig,
)
from deer_ros.model.deer import DeerModel
from deer_ros.model.vision import ClipTower

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
                  mlp_widths=st.lists(st.integers(2, 6), min_size=1, max_size=3).map(tuple))
resamplers = st.builds(ResamplerConfig, depth=sizes, latents=st.integers(2, 5), heads=sizes,
                       head_dim=sizes, mlp_ratio=sizes)
configs = st.builds(
    lambda vision, resampler, language, head: DeerConfig(
        vision=vision, resampler=resampler, language=language, head=head, prompt=PROMPT
    ),
    clip_towers | conv_towers, resamplers, languages, heads,
)


def counted_macs(function) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        function()
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def build(config: DeerConfig) -> DeerModel:
    model = DeerModel(config).eval().requires_grad_(False)
    if isinstance(model.tower, ClipTower):
        model.tower.clip.set_attn_implementation("eager")
    return model


@given(config=configs, tokens=st.integers(1, 7))
@settings(max_examples=15, deadline=None)
def test_every_part_costs_what_torch_counts(config, tokens):
    model = build(config)
    size = config.vision.image_size
    pictures = torch.rand(1, CAMERAS, 3, size, size)
    ids = torch.tensor([[0] + [5] * (tokens - 1)])
    with torch.no_grad():
        seen, prompt = model.tower(pictures), model.read(ids)
        latents, hidden = model.resample(seen), prompt.embedding
    assert counted_macs(lambda: model.tower(pictures)) == CAMERAS * tower_macs(config.vision)
    assert counted_macs(lambda: model.resample(seen)) == CAMERAS * resampler_macs(config)
    for number, layer in enumerate(model.layers, start=1):
        expected = layer_macs(config, number, tokens)
        assert counted_macs(lambda: layer(hidden, latents, prompt)) == expected
    state = model.head.initial_state()
    carried = model.head.carry(state)
    once, each = head_macs(config)
    assert counted_macs(lambda: model.head.carry(state)) == once
    assert counted_macs(lambda: model.head.step(hidden.amax(1), state, carried)) == each


def test_a_step_costs_the_sum_of_the_parts_that_ran():
    config = tiny_config(prompt=PROMPT)
    model, cost = build(config), CostModel(config, prompt_tokens=5)
    prompt, pictures = model.read(torch.tensor([[0, 5, 5, 1, 2]])), torch.rand(1, 2, 3, 32, 32)

    def step() -> None:
        for _ in model.answers(prompt, model.see(pictures), model.head.initial_state(), (1, 2, 4)):
            pass

    expected = cost.vision_gflops + cost.language_gflops(4) + cost.head_gflops(3)
    assert counted_macs(step) / 1e9 == pytest.approx(expected, rel=1e-12)


def test_the_published_model_costs_what_the_paper_says():
    published = CostModel(DeerConfig(), prompt_tokens=13)
    assert published.language_gflops(12) / 12 == pytest.approx(1.25, rel=0.01)
    assert published.vision_gflops == pytest.approx(2 * (81.0 + 5.75), rel=0.01)
    assert published.head_gflops(1) == pytest.approx(0.04, rel=0.1)


@given(tokens=st.integers(1, 32), layers=st.integers(1, 12))
def test_every_layer_and_every_token_adds_to_the_cost(tokens, layers):
    cost, longer = (CostModel(DeerConfig(), n) for n in (tokens, tokens + 1))
    assert cost.language_gflops(layers) > cost.language_gflops(layers - 1)
    assert longer.language_gflops(layers) > cost.language_gflops(layers)
