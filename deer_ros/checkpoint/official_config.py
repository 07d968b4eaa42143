"""What an official model is like: put together from its files, from what is known of the published
ones, and from a description that the user gives.

A description holds sizes and flags in the authors' words, nested as in JSON, with layers counted
from 0. It need only say what neither the files nor the published models tell. Inside this module it
is flat: `{"llm.d_model": 2048, ...}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deer_ros.model.config import DeerConfig
from deer_ros.model.prompt import END_OF_CHUNK, END_OF_TEXT, IMAGE, PADDING

MLP_WIDTHS = (1024, 512, 256)

# CALVIN's relative actions: position and Euler increments of the target, in the robot's base frame.
CALVIN = {
    "rate_hz": 30.0,
    "frame": "world",
    "rotation": "euler_xyz_increment",
    "reference": "target",
    "linear_scale": 0.02,
    "angular_scale": 0.05,
}
CALVIN_EPISODE_STEPS = 360

_COMMON = {
    "llm.mlp_ratio": 4, "llm.vocab_size": 50280, "llm.alibi_bias_max": 8.0,
    "llm.layer_norm_eps": 1e-5,
    "cross_attention.heads": 8, "cross_attention.dim_head": 64, "cross_attention.ff_mult": 4,
    "perceiver.depth": 6, "perceiver.num_latents": 64, "perceiver.heads": 8,
    "perceiver.dim_head": 64, "perceiver.ff_mult": 4,
    "vision.image_size": 224, "vision.patch_size": 14, "vision.width": 1024, "vision.layers": 24,
    "vision.head_width": 64, "vision.mlp_ratio": 4.0,
    "head.lstm_hidden": 1024,
    f"special_tokens.{END_OF_TEXT}": 0, f"special_tokens.{END_OF_CHUNK}": 50277,
    f"special_tokens.{IMAGE}": 50278, f"special_tokens.{PADDING}": 50279,
    "max_prompt_tokens": 32,
}
# The published models, by the width of their language model: OpenFlamingo 3B and 9B.
PUBLISHED: dict[int, dict[str, Any]] = {
    2048: _COMMON | {
        "llm.d_model": 2048, "llm.n_heads": 16, "llm.n_layers_in_mpt_file": 24,
        "llm.attn_qk_ln": True, "cross_attn_every_n_layers": 1,
    },
    4096: _COMMON | {
        "llm.d_model": 4096, "llm.n_heads": 32, "llm.n_layers_in_mpt_file": 32,
        "llm.attn_qk_ln": False, "cross_attn_every_n_layers": 4,
    },
}

# Values beside a checkpoint's tensors: where a description has them, and what the authors'
# evaluator takes for those that a checkpoint does not have.
VALUES: dict[str, tuple[str, Any]] = {
    "head_type": ("head_type", "deterministic"),
    "use_layerwise_projection": ("use_layerwise_projection", False),
    "early_exit_layer": ("layers_kept", -1),
    "exit_interval": ("exit_interval", 1),
    "exit_dropout": ("exit_dropout", 0.0),
    "lstm_dropout": ("lstm_dropout", 0.0),
    "mlp_layernorm": ("head.mlp_layernorm", False),
    "lstm_layernorm": ("head.lstm_layernorm", False),
    "mlp_num_hidden_layers": ("head.mlp_hidden", 3),
    "lstm_num_layers": ("head.lstm_layers", 4),
    "pooling": ("head.pooling", "max"),
}
# Values that change no number of the running model, and why.
OF_TRAINING = "of training only"
OF_HEADS = "of heads of training, or of kinds of heads that are refused"
IGNORED_VALUES = {
    **dict.fromkeys((
        "epoch", "exit_weight", "dropout_mode", "optimizer_state_dict", "lr_scheduler_state_dict",
        "extra_optimizer_state_dict", "extra_lr_scheduler_state_dict"), OF_TRAINING),
    **dict.fromkeys((
        "share_exit", "num_projection_layers", "skip_connection", "state_dependent_std",
        "tanh_squash_dist"), OF_HEADS),
    "precision": "the one that a model runs in is chosen when it is loaded",
    "multi_exit": "models here always have exits",
    "use_extra_exit": "models here always have the head that all exits share",
    "values": "criterion values of an earlier calibration: calibrate the model anew",
}
# Without these there is no model with exits. A checkpoint need not say that it has them.
NEEDED_VALUES = ("multi_exit", "use_extra_exit")
OLD_NORM = "layernorm"  # of mlp_layernorm

# What this package's model is built for.
SUPPORTED = {
    "head_type": "deterministic", "use_layerwise_projection": False, "head.pooling": "max",
    "head.pose_dim": 6, "head.gripper_dim": 1, "llm.alibi": True, "llm.no_bias": True,
    "vision.quick_gelu": True,
}
# Parts of a description that are not needed.
UNUSED = {
    "window", "text_tower_unused", "vocabulary", "vision.output_dim", "llm.max_seq_len",
    "llm.vocab_size_in_mpt_file", "exit_layers",
}
# Where `config.json` has what a description says.
_OURS = {
    "vision.image_size": "vision.image_size", "vision.width": "vision.width",
    "vision.patch_size": "vision.patch_size", "vision.layers": "vision.layers",
    "vision.mlp_ratio": "vision.mlp_ratio",
    "perceiver.depth": "resampler.depth", "perceiver.num_latents": "resampler.latents",
    "perceiver.heads": "resampler.heads", "perceiver.dim_head": "resampler.head_dim",
    "perceiver.ff_mult": "resampler.mlp_ratio",
    "llm.d_model": "language.width", "layers_kept": "language.layers",
    "llm.n_heads": "language.heads", "llm.mlp_ratio": "language.mlp_ratio",
    "llm.vocab_size": "language.vocabulary", "llm.attn_qk_ln": "language.qk_layer_norm",
    "llm.alibi_bias_max": "language.alibi_bias_max",
    "llm.layer_norm_eps": "language.layer_norm_eps",
    "cross_attn_every_n_layers": "language.cross_attention_every",
    "cross_attention.heads": "language.cross_attention_heads",
    "cross_attention.dim_head": "language.cross_attention_head_dim",
    "cross_attention.ff_mult": "language.cross_attention_mlp_ratio",
    "head.lstm_hidden": "head.lstm_width", "head.lstm_layers": "head.lstm_layers",
    "head.lstm_layernorm": "head.lstm_layer_norm", "head.mlp_hidden": "head.mlp_widths",
    "head.mlp_layernorm": "head.mlp_layer_norm", "lstm_dropout": "head.lstm_dropout",
    "exit_dropout": "head.mlp_dropout",
    "exit_interval": "exits.interval",
    f"special_tokens.{IMAGE}": "prompt.image_token",
    f"special_tokens.{END_OF_CHUNK}": "prompt.end_of_chunk_token",
    f"special_tokens.{END_OF_TEXT}": "prompt.end_of_text_token",
    f"special_tokens.{PADDING}": "prompt.padding_token",
    "max_prompt_tokens": "prompt.max_tokens",
    "multi_execution": "action.executions_per_step",
}
# What a description need not say.
_DEFAULTS = {"exit_dropout": 0.0, "lstm_dropout": 0.0, "multi_execution": 1}


def read_description(given: Mapping[str, Any] | str | Path | None) -> Mapping[str, Any]:
    """A description from a dictionary, a JSON file, or nothing."""
    if given is None or isinstance(given, Mapping):
        return given or {}
    try:
        read = json.loads(Path(given).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{given} cannot be read as JSON: {error}.") from error
    if not isinstance(read, Mapping):
        raise ValueError(f"{given} holds no JSON object.")
    return read


def official_config(
    description: Mapping[str, Any],
    values: Mapping[str, Any] | None = None,
    width: int | None = None,
) -> DeerConfig:
    """The configuration of an official model.

    values: what the DeeR file holds beside its tensors; empty or None where it is tensors alone.
    width: of the language model, by which a published model is recognised. Raises ValueError for
    what is unknown, missing, contradictory or not supported.
    """
    values = dict(values or {})
    given = _flat(description)
    stated = {p.split(".")[1]: given.pop(p) for p in list(given)
              if p.startswith("checkpoint_scalars.")}
    _check_known(given, {**stated, **values})
    flat = PUBLISHED.get(width, {}) | given
    for name, value in stated.items():
        if values.setdefault(name, value) != value:
            raise ValueError(
                f"{name} is {value!r} in the description and {values[name]!r} in the DeeR file."
            )
    _add_values(flat, values)
    for path, wanted in SUPPORTED.items():
        if flat.get(path, wanted) != wanted:
            raise ValueError(f"{path} is {flat[path]!r}; models here have {wanted!r} there.")
    config = _translated(flat)
    exits = [layer - 1 for layer in config.exit_layers]
    if flat.get("exit_layers", exits) != exits:
        raise ValueError(
            f"exit_layers is {flat['exit_layers']}; layers_kept and exit_interval make {exits}."
        )
    return config


def _flat(nested: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{where}{key}.")
        else:
            flat[f"{where}{key}"] = value
    return flat


def _check_known(given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    known = {*_OURS, *SUPPORTED, *UNUSED, "llm.n_layers_in_mpt_file", "vision.head_width"}
    for path in given:
        if path not in known and path.split(".")[0] not in UNUSED:
            raise ValueError(
                f"the description has {path!r}, which is not known; known are "
                f"{', '.join(sorted(known))}."
            )
    for name, value in values.items():
        if name not in VALUES and name not in IGNORED_VALUES and name != OLD_NORM:
            raise ValueError(
                f"the checkpoint holds {name!r} beside its tensors; what that means is not known."
            )
        if name in NEEDED_VALUES and value is False:
            raise ValueError(
                f"the checkpoint says {name}: False; without it there is no head that answers "
                "after any exit, and nothing that could be run here."
            )


def _add_values(flat: dict[str, Any], values: dict[str, Any]) -> None:
    """Put a checkpoint's values into a description; it must not say otherwise.

    The evaluator's defaults stand in only where there are values at all: tensors alone say nothing
    about what the model was built with.
    """
    is_checkpoint = bool(values)
    if OLD_NORM in values:
        values["mlp_layernorm"] = values[OLD_NORM]
    for name, (path, default) in VALUES.items():
        if name not in values and (path in flat or not is_checkpoint):
            continue
        value = _described(name, values.get(name, default), flat)
        if flat.setdefault(path, value) != value:
            raise ValueError(
                f"{path} is {flat[path]!r} in the description; the checkpoint's {name} makes it "
                f"{value!r}."
            )


def _described(name: str, value: Any, flat: Mapping[str, Any]) -> Any:
    if name == "early_exit_layer":
        last = _whole(name, value, least=None)
        return last + 1 if last >= 0 else last + 1 + _size(flat, "llm.n_layers_in_mpt_file")
    if name == "mlp_num_hidden_layers":
        widths, count = flat.get("head.mlp_hidden", []), _whole(name, value)
        if not isinstance(widths, (list, tuple)):
            raise ValueError(f"head.mlp_hidden is {widths!r}; it must be a list.")
        return widths if len(widths) == count else list(MLP_WIDTHS[:count])
    return value


def _translated(flat: Mapping[str, Any]) -> DeerConfig:
    flat = _DEFAULTS | flat
    nested: dict[str, Any] = {
        "action": dict(CALVIN), "trained_in": "simulation",
        "max_episode_steps": CALVIN_EPISODE_STEPS,
    }
    for theirs, ours in _OURS.items():
        part, key = ours.split(".")
        nested.setdefault(part, {})[key] = _get(flat, theirs)
    heads, uneven = divmod(_size(flat, "vision.width"), _size(flat, "vision.head_width"))
    if uneven:
        raise ValueError(
            f"vision.width {flat['vision.width']} is not a multiple of vision.head_width "
            f"{flat['vision.head_width']}."
        )
    nested["vision"] |= {"type": "clip", "heads": heads}
    return DeerConfig.from_dict(nested)


def _size(flat: Mapping[str, Any], path: str) -> int:
    return _whole(path, _get(flat, path))


def _whole(name: str, value: Any, least: int | None = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or least is not None and value < least:
        at_least = "" if least is None else f" from {least}"
        raise ValueError(f"{name} is {value!r}; it must be a whole number{at_least}.")
    return value


def _get(flat: Mapping[str, Any], path: str) -> Any:
    if path not in flat:
        raise ValueError(
            f"nothing says what the model's {path} is: its files do not, and it is not one of the "
            "published ones. Give it in config."
        )
    return flat[path]
