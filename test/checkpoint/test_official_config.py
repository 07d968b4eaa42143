from __future__ import annotations

import json

import pytest
from official_model import PUBLISHED_3B, PUBLISHED_9B, Official

from deer_ros.checkpoint.official_config import official_config, read_description
from deer_ros.checkpoint.official_tokenizer import official_prompts
from deer_ros.model.config import ActionConfig, DeerConfig, PromptConfig

OFFICIAL = Official()


def with_values(**values):
    """The published 3B model with other values beside its tensors."""
    return official_config({}, PUBLISHED_3B.values() | values, width=2048)


def without(*names: str):
    values = {k: v for k, v in PUBLISHED_3B.values().items() if k not in names}
    return official_config({}, values, width=2048)


def test_the_published_3b_model_is_known():
    config = official_config({}, PUBLISHED_3B.values(), width=2048)
    assert config.exit_layers == (2, 4, 6, 8, 10, 12)
    language = config.language
    assert (language.width, language.heads, language.vocabulary) == (2048, 16, 50280)
    assert language.qk_layer_norm and language.cross_attention_every == 1
    assert config.prompt == PromptConfig(50278, 50277, 0, 50279, 32)
    assert config.vision.heads == 16 and config.vision.tokens == 256
    assert config.head.mlp_widths == (1024, 512)
    assert (config.head.mlp_dropout, config.head.lstm_dropout) == (0.4, 0.3)


def test_the_published_9b_model_is_known():
    config = official_config({}, PUBLISHED_9B.values(), width=4096)
    assert config.exit_layers == tuple(range(2, 17, 2))
    assert not config.language.qk_layer_norm
    assert [n for n in range(1, 17) if config.language.has_cross_attention(n)] == [4, 8, 12, 16]


def test_an_official_model_acts_as_calvin_does():
    config = with_values()
    assert config.action == ActionConfig(30.0, "world", "euler_xyz_increment", "target", 0.02, 0.05)
    assert (config.trained_in, config.max_episode_steps) == ("simulation", 360)
    assert config.proprioception is None and config.exits.thresholds is None


def test_values_that_a_checkpoint_lacks_are_the_evaluators():
    assert without("exit_interval").exits.interval == 1
    head = without("mlp_layernorm", "lstm_layernorm", "mlp_num_hidden_layers", "lstm_num_layers",
                   "exit_dropout", "lstm_dropout").head
    assert not head.mlp_layer_norm and not head.lstm_layer_norm
    assert head.mlp_widths == (1024, 512, 256) and head.lstm_layers == 4
    assert head.mlp_dropout == head.lstm_dropout == 0.0
    assert without("early_exit_layer").language.layers == 24


@pytest.mark.parametrize(("last", "layers"), [(11, 12), (0, 1), (-1, 24), (-13, 12)])
def test_the_last_layer_may_be_counted_from_the_end(last, layers):
    assert with_values(early_exit_layer=last, exit_interval=1).language.layers == layers


def test_the_old_name_of_the_layer_norm_is_obeyed():
    assert with_values(mlp_layernorm=False, layernorm=True).head.mlp_layer_norm
    assert not with_values(layernorm=False).head.mlp_layer_norm


@pytest.mark.parametrize("name", [
    "use_extra_exit", "exit_weight", "num_projection_layers", "skip_connection",
    "tanh_squash_dist", "state_dependent_std", "values", "optimizer_state_dict",
])
def test_values_of_older_checkpoints_are_known(name):
    assert with_values(**{name: "anything"}) == with_values()


@pytest.mark.parametrize(("name", "value", "complaint"), [
    ("head_type", "gaussian", "head_type is 'gaussian'; models here have 'deterministic' there"),
    ("pooling", "mean", "head.pooling is 'mean'; models here have 'max' there"),
    ("use_layerwise_projection", True, "use_layerwise_projection is True"),
    ("multi_exit", False, "the checkpoint says multi_exit: False"),
    ("use_extra_exit", False, "the checkpoint says use_extra_exit: False"),
    ("exit_interval", 0, "exits.interval is 0; it must be at least 1"),
    ("lstm_num_layers", 0, "head.lstm_layers is 0"),
    ("early_exit_layer", "11", "early_exit_layer is '11'; it must be a whole number"),
    ("mlp_num_hidden_layers", None, "mlp_num_hidden_layers is None; it must be a whole number"),
    ("early_exit_layer", -25, "language.layers is 0"),
    ("exit_dropout", 1.0, "head.mlp_dropout is 1.0"),
    ("window_size", 12, "the checkpoint holds 'window_size' beside its tensors"),
])
def test_what_a_checkpoint_asks_for_and_nothing_obeys_is_refused_by_name(name, value, complaint):
    with pytest.raises(ValueError, match=complaint):
        with_values(**{name: value})


@pytest.mark.parametrize("option", [
    {"head": {"pooling": "mean"}}, {"exits": {"ensemble": True}}, {"fusion_mode": "pre"},
    {"vision": {"gelu": "exact"}}, {"language": {"bias": True}},
])
def test_a_model_directory_that_asks_for_what_nothing_obeys_is_refused_by_name(option):
    (part, value), = option.items()
    named = f"{part}.{next(iter(value))}" if isinstance(value, dict) else part
    with pytest.raises(ValueError, match=f"unknown key '{named}'"):
        DeerConfig.from_dict(option)


def test_a_description_wins_over_what_is_published():
    given = {"perceiver": {"num_latents": 32}, "max_prompt_tokens": 20}
    config = official_config(given, PUBLISHED_3B.values(), width=2048)
    assert config.resampler.latents == 32 and config.prompt.max_tokens == 20
    assert config.resampler.depth == 6


def test_a_description_may_hold_the_values_itself():
    described = OFFICIAL.description() | {"checkpoint_scalars": OFFICIAL.values()}
    assert official_config(described) == official_config(OFFICIAL.description(), OFFICIAL.values())


def test_a_description_stands_in_for_values_that_are_missing():
    values = {k: v for k, v in PUBLISHED_3B.values().items() if k != "exit_interval"}
    assert official_config({"exit_interval": 3}, values, width=2048).exits.interval == 3


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"exit_interval": 3}, "exit_interval is 3 in the description; the checkpoint's"),
        ({"layers_kept": 4}, "layers_kept is 4 in the description; the checkpoint's"),
        ({"checkpoint_scalars": {"pooling": "mean"}}, "pooling is 'mean' in the description and"),
        ({"exit_layers": [1, 3]}, r"exit_layers is \[1, 3\]; layers_kept and exit_interval make"),
        ({"head": {"mlp_hidden": [8]}}, r"head.mlp_hidden is \[8\]"),
        ({"llm": {"alibi": False}}, "llm.alibi is False; models here have True there"),
        ({"llm": {"no_bias": False}}, "llm.no_bias is False"),
        ({"vision": {"quick_gelu": False}}, "vision.quick_gelu is False"),
        ({"head": {"pose_dim": 7}}, "head.pose_dim is 7"),
        ({"vision": {"head_width": 60}}, "1024 is not a multiple of vision.head_width 60"),
        ({"vision": {"head_width": 0}}, "vision.head_width is 0; it must be a whole number from 1"),
        ({"vision": {"head_width": "64"}}, "vision.head_width is '64'; it must be a whole number"),
        ({"vision": {"width": None}}, "vision.width is None; it must be a whole number from 1"),
        ({"head": {"mlp_hidden": 8}}, "head.mlp_hidden is 8; it must be a list"),
        ({"llm": {"heads": 16}}, "the description has 'llm.heads', which is not known"),
        ({"layer_kept": 12}, "the description has 'layer_kept', which is not known"),
        ({"checkpoint_scalars": {"novel": 1}}, "the checkpoint holds 'novel' beside its tensors"),
        ({"multi_execution": 0}, "action.executions_per_step is 0; it must be 1 to"),
        ({"llm": {"n_heads": "16"}}, "language.heads is '16'; it must be of type int"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(given, complaint):
    with pytest.raises(ValueError, match=complaint):
        official_config(given, PUBLISHED_3B.values(), width=2048)


@pytest.mark.parametrize("value", [None, "64", [], [64], {}, {"a": 1}, 0, -1, 1.5, True])
def test_whatever_stands_in_a_description_is_obeyed_or_refused_with_a_sentence(value):
    described = OFFICIAL.description() | {"checkpoint_scalars": OFFICIAL.values()}
    places = [(described, key) for key in described]
    places += [(part, key) for part in described.values() if isinstance(part, dict) for key in part]
    for part, key in places:
        before, part[key] = part[key], value
        try:
            config = official_config(described)
            official_prompts(None, described, config)
        except ValueError as error:
            assert str(error)
        part[key] = before


def test_an_action_may_be_carried_out_several_times():
    config = with_values()
    several = official_config({"multi_execution": 3}, PUBLISHED_3B.values(), width=2048)
    assert (config.action.executions_per_step, several.action.executions_per_step) == (1, 3)
    assert official_config({}, PUBLISHED_3B.values(), width=2048) == config, "and no later one is"


def test_what_nothing_says_is_named():
    described = OFFICIAL.description()
    del described["llm"]["n_heads"]
    with pytest.raises(ValueError, match="nothing says what the model's llm.n_heads is"):
        official_config(described, OFFICIAL.values())


def test_a_description_is_read_from_a_file(tmp_path):
    file = tmp_path / "c.json"
    file.write_text(json.dumps(OFFICIAL.description()))
    assert read_description(file) == read_description(str(file)) == OFFICIAL.description()
    assert read_description(None) == {}
    for text, complaint in (("{", "cannot be read as JSON"), ("[]", "holds no JSON object")):
        file.write_text(text)
        with pytest.raises(ValueError, match=complaint):
            read_description(file)
