"""A model directory: `config.json`, safetensors weights, tokenizer and preprocessor files.

Only safetensors are read, never a pickle, and only the tensors of the layers that are asked for.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from deer_ros.budget.cadence import Cadence
from deer_ros.budget.solver import ALWAYS, finite
from deer_ros.checkpoint.source import WeightSource, layer_index
from deer_ros.checkpoint.thresholds import THRESHOLDS, with_searched_thresholds
from deer_ros.checkpoint.weights import WEIGHTS, StoredTensor, check_shape, stored_tensors
from deer_ros.model.config import DeerConfig
from deer_ros.model.deer import DeerModel
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.model.prompt import END_OF_CHUNK, END_OF_TEXT, IMAGE, PADDING, PromptEncoder
from deer_ros.unfinished import take_place, unfinished_beside

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
CALIBRATION = "calibration.safetensors"


@dataclass(frozen=True)
class LoadedModel:
    """What a model directory holds, ready to run. source: where further layers come from."""

    model: DeerModel
    preprocessor: Preprocessor
    prompts: PromptEncoder
    source: WeightSource | None = None


def load_model(
    folder: str | Path,
    max_layer: int | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> LoadedModel:
    """Read a model directory, its first `max_layer` layers only (None: all).

    dtype None keeps the stored one. Raises FileNotFoundError or ValueError with a sentence that
    names the file, key or tensor that is missing or wrong.
    """
    folder = Path(folder)
    config, preprocessor, prompts = _load_files(folder)
    with torch.device("meta"):
        model = DeerModel(config, max_layer)
    source = WeightSource(folder, config, device, dtype)
    left_out = {name for name in source.names if _beyond(name, model)}
    _check_names(set(model.state_dict()), source.names - left_out, folder)
    source.fill(model)
    _restore_buffers(model, device)
    return LoadedModel(model.eval().requires_grad_(False), preprocessor, prompts, source)


def inspect_model(folder: str | Path) -> tuple[DeerConfig, dict[str, StoredTensor]]:
    """Configuration and stored tensors of a model directory, without reading a weight.

    Raises what `load_model` would raise for files, names and shapes that do not fit.
    """
    folder = Path(folder)
    config, _, _ = _load_files(folder)
    with torch.device("meta"):
        expected = DeerModel(config).state_dict()
    stored = stored_tensors(folder)
    _check_names(set(expected), set(stored), folder)
    for name, tensor in stored.items():
        check_shape(name, tensor.shape, expected[name].shape, folder)
    return config, stored


def read_config(folder: str | Path) -> DeerConfig:
    """`config.json`, with the thresholds of `thresholds.json` where `deer search` left one.

    Raises FileNotFoundError or ValueError with a sentence.
    """
    folder = Path(folder)
    return with_searched_thresholds(folder, DeerConfig.load(folder / CONFIG))


def _load_files(folder: Path) -> tuple[DeerConfig, Preprocessor, PromptEncoder]:
    """All of a model directory but its weights, checked to fit together."""
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no model directory {folder}.")
    for name in (CONFIG, PREPROCESSOR):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}; a model directory needs it.")
    config = read_config(folder)
    prompts = PromptEncoder.load(folder, config.prompt)
    _check_tokens(folder, prompts, config.language.vocabulary)
    preprocessor = Preprocessor.load(folder / PREPROCESSOR)
    if preprocessor.size != config.vision.image_size:
        raise ValueError(
            f"{folder / PREPROCESSOR} makes pictures of {preprocessor.size} pixels; the model's "
            f"tower takes {config.vision.image_size}."
        )
    return config, preprocessor, prompts


def _check_tokens(folder: Path, prompts: PromptEncoder, vocabulary: int) -> None:
    """ValueError where prompt, tokenizer and vocabulary do not belong together."""
    ids = dict(zip((IMAGE, END_OF_CHUNK, END_OF_TEXT, PADDING), prompts.config.special_tokens))
    known = prompts.tokenizer.get_vocab()
    if not all(0 <= id < vocabulary for id in ids.values()):
        raise ValueError(
            f"{folder / CONFIG}: the prompt's token ids are {list(ids.values())}; this model's "
            f"vocabulary has 0 to {vocabulary - 1}."
        )
    if ids[IMAGE] == ids[END_OF_CHUNK]:
        raise ValueError(
            f"{folder / CONFIG}: prompt.image_token and prompt.end_of_chunk_token are both "
            f"{ids[IMAGE]}; they must differ."
        )
    for token, id in ids.items():
        if known.get(token, id) != id:
            raise ValueError(
                f"{folder / CONFIG} says that {token} is the token {id}; the tokenizer.json beside "
                f"it says {known[token]}. They must be of one model."
            )
    if max(known.values(), default=0) >= vocabulary:
        raise ValueError(
            f"{folder} has a tokenizer.json with tokens up to {max(known.values())}; this model's "
            f"vocabulary has 0 to {vocabulary - 1}."
        )


def save_model(
    folder: str | Path,
    model: DeerModel,
    preprocessor: Preprocessor,
    prompts: PromptEncoder,
    config: DeerConfig | None = None,
) -> None:
    """Write a whole model directory; it appears at once or not at all.

    `config` replaces the model's own, for what training settles last (thresholds, say). An earlier
    directory of that name is replaced. Raises ValueError for a model of which layers are missing.
    """
    folder = Path(folder)
    if model.max_layer < model.config.language.layers:
        raise ValueError(
            f"the model has {model.max_layer} of its {model.config.language.layers} layers, too "
            f"few for a model directory {folder}; load it without max_layer."
        )
    with unfinished_beside(folder) as unfinished:
        (config or model.config).save(unfinished / CONFIG)
        preprocessor.save(unfinished / PREPROCESSOR)
        prompts.save(unfinished)
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, str(unfinished / WEIGHTS), metadata={"format": "pt"})
        take_place(unfinished, folder)


def _beyond(name: str, model: DeerModel) -> bool:
    """Whether a tensor belongs to a layer of the configuration that this model leaves out."""
    index = layer_index(name)
    return index is not None and model.max_layer <= index < model.config.language.layers


def _restore_buffers(model: DeerModel, device: str | torch.device) -> None:
    """Buffers that are no weights (CLIP's position ids) are not in the file: make them anew."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                if name != "position_ids":
                    raise ValueError(f"the buffer {name!r} is neither stored nor known.")
                module.position_ids = torch.arange(buffer.numel(), device=device).view(buffer.shape)


def _check_names(expected: set[str], found: set[str], folder: Path) -> None:
    missing, unknown = sorted(expected - found), sorted(found - expected)
    if missing or unknown:
        raise ValueError(
            f"the weights in {folder} do not fit its {CONFIG}: {_listed('missing', missing)}"
            f"{_listed('unknown', unknown)}"
        )


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{what} {', '.join(names[:5])}{more}. "


def keep_thresholds(
    folder: str | Path, thresholds: Sequence[float], metric: str, cadence: Cadence
) -> None:
    """Make this rule the model's own, in its `config.json`, which is changed whole or not at all.

    thresholds: one per exit, or per exit up to the deepest permitted one, which is always taken.
    Raises ValueError where `thresholds.json` would hide them.
    """
    folder = Path(folder)
    if (folder / THRESHOLDS).exists():
        raise ValueError(
            f"{folder / THRESHOLDS} holds searched thresholds, which come before those of "
            f"{CONFIG}; delete it first, to keep others."
        )
    config = DeerConfig.load(folder / CONFIG)
    kept = finite(thresholds[:-1])
    always = [ALWAYS] * (len(config.exit_layers) - len(kept))
    exits = dataclasses.replace(
        config.exits, thresholds=(*kept, *always), metric=metric,
        steps_per_decision=cadence.steps_per_decision, max_layer_between=cadence.layer_between,
    )  # fmt: skip
    beside = folder / f".{CONFIG}.{os.getpid()}.part"
    try:
        config.replace(exits=exits).save(beside)
        os.replace(beside, folder / CONFIG)
    finally:
        beside.unlink(missing_ok=True)
