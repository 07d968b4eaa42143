"""Which metric a step goes by: the model's own, unless another one is asked for."""

from __future__ import annotations

import pytest
from tiny_model import tiny_config

from deer_ros.model.config import ExitConfig
from deer_ros.stepping.settings import Settings


def test_the_models_own_metric_goes_with_its_own_thresholds():
    config = tiny_config(exits=ExitConfig(2, "cosine", (0.1, 0.1, 1e8)))
    assert Settings().exit_rule(config).metric == "cosine"
    assert Settings(exit_metric="max").exit_rule(config).metric == "max"


def test_a_metric_that_the_model_has_not_learned_is_refused():
    with pytest.raises(ValueError, match="the metric learned needs a model whose head has a gate"):
        Settings(exit_metric="learned").exit_rule(tiny_config())
