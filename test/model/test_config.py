from __future__ import annotations

import json
import math

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import tiny_config

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
from deer_ros.model.deer import DeerModel


def with_layers(layers: int, interval: int) -> DeerConfig:
    language = LanguageConfig(width=8, heads=2, layers=layers)
    return DeerConfig(language=language, exits=ExitConfig(interval=interval))


def test_a_configuration_survives_its_file(tmp_path):
    config = tiny_config()
    config.save(tmp_path / "config.json")
    assert DeerConfig.load(tmp_path / "config.json") == config


@given(layers=st.integers(1, 40), interval=st.integers(1, 40))
def test_exits_are_an_interval_apart_and_the_deepest_layer_is_the_last(layers, interval):
    exits = with_layers(layers, interval).exit_layers
    assert exits[-1] == layers
    assert all(layer % interval == 0 for layer in exits[:-1])
    assert list(exits) == sorted(set(exits))


@given(layers=st.integers(1, 40), interval=st.integers(1, 40), max_layer=st.integers(-3, 50))
def test_max_layer_is_rounded_down_to_an_exit_or_refused(layers, interval, max_layer):
    config = with_layers(layers, interval)
    if max_layer < config.exit_layers[0]:
        with pytest.raises(ValueError, match="max_layer is"):
            config.permitted_exits(max_layer)
    else:
        permitted = config.permitted_exits(max_layer)
        assert permitted[-1] <= max_layer
        assert permitted == config.exit_layers[: len(permitted)]
        assert all(layer > max_layer for layer in config.exit_layers[len(permitted):])


def test_the_published_sizes_have_the_published_exits():
    assert DeerConfig().exit_layers == (2, 4, 6, 8, 10, 12)
    assert DeerConfig().permitted_exits(4) == (2, 4)
    assert with_layers(16, 2).exit_layers == (2, 4, 6, 8, 10, 12, 14, 16)


def test_cross_attention_every_fourth_layer_precedes_layers_4_8_12():
    language = LanguageConfig(layers=12, cross_attention_every=4)
    assert [n for n in range(1, 13) if language.has_cross_attention(n)] == [4, 8, 12]


def test_a_model_without_thresholds_runs_to_full_depth():
    assert with_layers(6, 2).thresholds == (-math.inf, -math.inf, math.inf)


def test_the_last_threshold_is_infinite_whatever_the_file_says():
    config = tiny_config(exits=ExitConfig(interval=2, thresholds=(0.1, 0.2, 0.3)))
    assert config.thresholds == (0.1, 0.2, math.inf)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"visoin": {}}, "unknown key 'visoin'"),
        ({"vision": {"wide": 3}}, "unknown key 'vision.wide'"),
        ({"vision": []}, "vision must be an object"),
        ({"language": {"width": "2048"}}, "language.width is '2048'; it must be of type int"),
        ({"language": {"width": 2048.0}}, "language.width is 2048.0; it must be of type int"),
        ({"language": {"width": True}}, "language.width is True"),
        ({"language": {"qk_layer_norm": 1}}, "language.qk_layer_norm is 1"),
        ({"head": {"mlp_widths": 5}}, "head.mlp_widths is 5; it must be a list"),
        ({"head": {"mlp_widths": [5, "x"]}}, r"head.mlp_widths\[1\] is 'x'"),
        ({"head": {"lstm_dropout": math.nan}}, "head.lstm_dropout is NaN"),
        ({"head": {"lstm_dropout": "much"}}, "head.lstm_dropout is 'much'; it must be of type fl"),
        ({"head": {"lstm_dropout": 10**400}}, "it must be of type float"),
        ({"exits": {"thresholds": [0.1, None]}}, r"exits.thresholds\[1\] is None"),
        ({"proprioception": {"joints": 7}}, "unknown key 'proprioception.joints'"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"trained_in": "a dream"}, "trained_in is 'a dream'"),
    ],
)
def test_a_wrong_key_or_type_is_named(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        DeerConfig.from_dict(values)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: VisionConfig(type="resnet"), "vision.type is 'resnet'"),
        (lambda: VisionConfig(image_size=225), "225 is not a multiple of vision.patch_size 14"),
        (lambda: VisionConfig(width=0), "vision.width is 0"),
        (lambda: VisionConfig(mlp_ratio=math.inf), "vision.mlp_ratio is inf"),
        (lambda: VisionConfig(width=1000), "1000 is not a multiple of vision.heads 16"),
        (lambda: VisionConfig("conv", width=8, channels=(8,), strides=()), "they have 1 and 0"),
        (lambda: VisionConfig("conv", width=16, channels=(8,), strides=(2,)), "must be equal"),
        (lambda: VisionConfig("conv", width=12, channels=(12,), strides=(2,)), "multiple of 8"),
        (lambda: VisionConfig("conv", width=8, channels=(8,), strides=(0,)), "vision.strides is"),
        (lambda: ResamplerConfig(latents=-1), "resampler.latents is -1"),
        (lambda: LanguageConfig(layers=0), "language.layers is 0"),
        (lambda: LanguageConfig(width=100), "100 is not a multiple of language.heads 16"),
        (lambda: HeadConfig(mlp_widths=(3, 0)), r"head.mlp_widths is \(3, 0\)"),
        (lambda: HeadConfig(mlp_dropout=1.0), "head.mlp_dropout is 1.0"),
        (lambda: ExitConfig(interval=0), "exits.interval is 0"),
        (lambda: ExitConfig(metric="l3"), "exits.metric is 'l3'; allowed are l2, mean, max"),
        (lambda: VisionConfig(width=1 << 62), f"vision.width is {1 << 62}; it must be above zero "),
        (lambda: VisionConfig(mlp_ratio=1e30), r"vision.mlp_ratio is 1e\+30; .* at most 1000"),
        (lambda: VisionConfig("conv", width=8, channels=(8,) * 1001, strides=(1,) * 1001),
         "vision.channels has 1001 numbers"),
        (lambda: ResamplerConfig(latents=1 << 63), "resampler.latents is"),
        (lambda: ResamplerConfig(depth=1001), "resampler.depth is 1001; .* at most 1000"),
        (lambda: LanguageConfig(layers=10**6), "language.layers is 1000000; .* at most 1000"),
        (lambda: HeadConfig(lstm_layers=1001), "head.lstm_layers is 1001; .* at most 1000"),
        (lambda: HeadConfig(mlp_widths=(1 << 17,)), "head.mlp_widths is .* at most 65536"),
        (lambda: tiny_config(max_episode_steps=10**400), "max_episode_steps is 1000"),
        (lambda: ExitConfig(steps_per_decision=10**400), "exits.steps_per_decision is 1000"),
        (lambda: PromptConfig(max_tokens=3), "prompt.max_tokens is 3"),
        (lambda: tiny_config(max_episode_steps=0), "max_episode_steps is 0"),
        (lambda: tiny_config(exits=ExitConfig(thresholds=(1.0,))), "has 1 numbers; the model has"),
    ],
)
def test_a_size_that_cannot_be_is_refused(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()


@pytest.mark.parametrize("name, value", [
    ("frame", "camera"), ("rotation", "quaternion"), ("reference", "none"),
    ("rate_hz", 0.0), ("rate_hz", 1e12), ("rate_hz", 1e-300), ("rate_hz", math.nan),
    ("linear_scale", math.inf), ("angular_scale", -1.0),
    ("executions_per_step", 0), ("executions_per_step", 1001), ("executions_per_step", 1.5),
])
def test_an_action_that_means_nothing_is_refused(name, value):
    with pytest.raises(ValueError, match=f"action.{name} is"):
        DeerConfig.from_dict({"action": {name: value}})


def test_a_number_without_a_point_that_yaml_takes_for_text_is_a_number():
    assert yaml.safe_load("1e-4") == "1e-4"
    assert DeerConfig.from_dict({"head": {"lstm_dropout": "1e-4"}}).head.lstm_dropout == 1e-4


def test_the_largest_of_all_sizes_overflow_nothing():
    most = {"width": 1 << 16, "heads": 1 << 16, "mlp_ratio": 1000}
    config = DeerConfig.from_dict({
        "vision": most | {"mlp_ratio": 1000.0, "image_size": 1 << 16, "patch_size": 1, "layers": 1},
        "resampler": {"depth": 1, "latents": 1 << 16, "heads": 1 << 16, "head_dim": 1 << 16,
                      "mlp_ratio": 1000},
        "language": most | {"layers": 1, "vocabulary": 1 << 24, "cross_attention_heads": 1 << 16,
                            "cross_attention_head_dim": 1 << 16,
                            "cross_attention_mlp_ratio": 1000},
        "head": {"lstm_width": 1 << 16, "mlp_widths": [1 << 16] * 2, "gate_width": 1 << 16},
    })
    with torch.device("meta"):
        model = DeerModel(config)
    assert sum(p.numel() for p in model.parameters()) > 1 << 48


def test_an_action_is_carried_out_once_unless_the_configuration_says_otherwise():
    assert DeerConfig.from_dict({}).action.executions_per_step == 1
    assert DeerConfig.from_dict({"action": {"executions_per_step": 3}}).action == (
        ActionConfig(executions_per_step=3))


@pytest.mark.parametrize(
    "text", ["", "[1", "[]", "\x00", '{"vision": {"type": "clip"', "[" * 100_000])
def test_a_broken_file_is_named(tmp_path, text):
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"config\.json: "):
        DeerConfig.load(file)


def test_infinite_thresholds_survive_the_file(tmp_path):
    config = tiny_config(exits=ExitConfig(interval=2, thresholds=(-math.inf, 0.5, math.inf)))
    config.save(tmp_path / "config.json")
    assert DeerConfig.load(tmp_path / "config.json").thresholds == (-math.inf, 0.5, math.inf)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["vision", "language", "width", "layers", "x"]), inner),
    max_leaves=8,
))
def test_any_json_is_a_configuration_or_a_value_error(values):
    try:
        DeerConfig.from_dict(json.loads(json.dumps(values)))
    except ValueError as error:
        assert str(error)
