from __future__ import annotations

import math

import pytest

from deer_ros.budget.presets import PRESETS, find_preset
from deer_ros.exit_rule import ExitRule
from deer_ros.model.config import DeerConfig, LanguageConfig

PUBLISHED_3B = DeerConfig()
PUBLISHED_9B = DeerConfig(language=LanguageConfig(4096, 16, 32, qk_layer_norm=False))


@pytest.mark.parametrize(
    ("name", "config", "layers"),
    [("deer-s-3b", PUBLISHED_3B, 4), ("deer-b-3b", PUBLISHED_3B, 12),
     ("deer-s-9b", PUBLISHED_9B, 8), ("deer-b-9b", PUBLISHED_9B, 12)],
)
def test_deer_s_and_deer_b_run_exactly_the_papers_layers(name, config, layers):
    rule = ExitRule.of(config, config.language.layers, max_layer=find_preset(name).max_layer)
    assert rule.exits[-1] == layers


@pytest.mark.parametrize(
    ("name", "first", "fifth"),
    [("calvin-d", 0.02413, 0.004597), ("calvin-abc", 0.05619, 0.005207),
     ("calvin-abcd", 0.03355, 0.007737)],
)
def test_published_thresholds_fit_the_published_model(name, first, fifth):
    preset = PRESETS[name]
    rule = ExitRule.of(PUBLISHED_3B, 12, preset.thresholds, preset.metric, preset.max_layer)
    assert rule.thresholds[0] == pytest.approx(first, abs=5e-6)
    assert rule.thresholds[4] == pytest.approx(fifth, abs=5e-7)
    assert rule.thresholds[5] == math.inf


def test_an_unknown_preset_lists_those_there_are():
    with pytest.raises(ValueError, match="there is no preset 'DeeR'; there are deer-s-3b, "):
        find_preset("DeeR")
