"""The cost model against torch's own counter, which counts two for every multiply-add.

The counter sees products only: fused attention and fused LSTMs count as nothing on a CPU, so the
tower runs with written-out attention here and the head step by step.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_configs import PROMPT, configs
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
from deer_ros.model.config import DeerConfig, ExitConfig
from deer_ros.model.deer import DeerModel
from deer_ros.model.vision import ClipTower


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
        assert counted_macs(partial(layer, hidden, latents, prompt)) == expected
    state = model.head.initial_state()
    carried = model.head.carry(state)
    once, each = head_macs(config)
    assert counted_macs(lambda: model.head.carry(state)) == once
    answer = partial(model.head.step, state=state, carried=carried, layer=1)
    assert counted_macs(lambda: answer(model.head.hear(hidden, 1))) == each


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


@pytest.mark.parametrize(("interval", "first"), [(1, 1), (2, 0), (3, 0), (6, 0)])
def test_the_fixed_part_ends_at_the_first_exit_that_can_be_taken(interval, first):
    config = tiny_config(prompt=PROMPT, exits=ExitConfig(interval=interval))
    cost = CostModel(config, prompt_tokens=6)
    assert cost.first_exit == first
    assert cost.fixed_gflops == cost.step_gflops(first)


@given(config=configs, tokens=st.integers(1, 9))
def test_exits_cost_the_layers_before_them_or_all_of_the_step(config, tokens):
    cost = CostModel(config, tokens)
    for index, layer in enumerate(config.exit_layers):
        assert cost.exit_gflops("llm")[index] == cost.language_gflops(layer)
        assert cost.exit_gflops("step")[index] == cost.step_gflops(index)
    with pytest.raises(ValueError, match="scope is 'LLM'; allowed are llm and step"):
        cost.exit_gflops("LLM")


@given(config=configs, tokens=st.integers(1, 7))
def test_an_exit_that_alone_answers_saves_the_answers_of_those_before(config, tokens):
    cost = CostModel(config, tokens)
    asked, alone = (cost.exit_gflops("step", asked) for asked in (True, False))
    one = cost.head_gflops(1) - cost.head_gflops(0)
    for index, saved in enumerate(asked - alone):
        assert saved == pytest.approx((cost.head_calls(index) - 1) * one, abs=1e-15)
    assert list(cost.exit_gflops("llm", False)) == list(cost.exit_gflops("llm"))
