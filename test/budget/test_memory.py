"""Bytes of weights against the modules that hold them, and against what `deer info` says."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from random_configs import configs
from tiny_model import tiny_config, write_tiny_model

from deer_ros.budget.memory import (
    MIB,
    fixed_parameters,
    head_parameters,
    layer_parameters,
    resampler_parameters,
    tower_parameters,
    weights_mib,
)
from deer_ros.cli.main import main
from deer_ros.model.config import DeerConfig, HeadConfig
from deer_ros.model.deer import DeerModel
from deer_ros.resources import bundled_model


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def assert_every_part_is_counted(config: DeerConfig) -> None:
    with torch.device("meta"):
        model = DeerModel(config)
    assert tower_parameters(config) == parameters(model.tower)
    assert resampler_parameters(config) == parameters(model.resampler)
    assert head_parameters(config) == parameters(model.head)
    for number, layer in enumerate(model.layers, start=1):
        assert layer_parameters(config, number) == parameters(layer)
    assert fixed_parameters(config) == parameters(model) - parameters(model.layers)


@given(config=configs)
@settings(max_examples=20)
def test_every_part_has_the_parameters_of_its_module(config):
    assert_every_part_is_counted(config)


def test_norms_that_are_left_out_are_not_counted():
    assert_every_part_is_counted(
        tiny_config(head=HeadConfig(8, 2, False, (8, 4), mlp_layer_norm=False))
    )


def test_the_published_model_has_every_part_counted():
    assert_every_part_is_counted(DeerConfig())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_policy_holds_what_is_said_of_its_depth(tmp_path, dtype):
    from deer_ros import DeerPolicy

    folder = write_tiny_model(tmp_path / "m")
    for depth in (2, 4, 6):
        model = DeerPolicy.from_pretrained(folder, dtype=dtype, max_layer=depth).model
        held = sum(p.numel() * p.element_size() for p in model.parameters())
        assert weights_mib(model.config, depth, dtype) * MIB == held


def test_deer_info_says_the_same_of_every_exit(capsys):
    assert main(["info", "--json"]) == 0
    config = DeerConfig.load(bundled_model() / "config.json")
    for told in json.loads(capsys.readouterr().out)["exits"]:
        assert told["weights_mib"] == pytest.approx(weights_mib(config, told["layer"], "float32"))
