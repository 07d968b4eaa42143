"""The model that a run starts with: a new one, or one from a model directory."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from deer_ros.checkpoint import load_model
from deer_ros.model.config import DeerConfig, ProprioceptionConfig
from deer_ros.model.deer import DeerModel
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.model.prompt import PromptEncoder, word_tokenizer
from deer_ros.training.dataset import Frames

# Small towers learn to see wherever the two means lie; these centre the pictures.
MEAN = (0.5, 0.5, 0.5)
STD = (0.25, 0.25, 0.25)
CONSTANT = 1e-4
"""A value that varies by less (m, rad) in all data says nothing, and is not blown up."""


@dataclass(frozen=True)
class Start:
    """A model with what goes with it; pretrained: it knows something already."""

    model: DeerModel
    preprocessor: Preprocessor
    prompts: PromptEncoder
    pretrained: bool


@dataclass(frozen=True)
class Sight:
    """A model's vision part, and how pictures are prepared for it."""

    tower: nn.Module
    resampler: nn.Module
    preprocessor: Preprocessor


def sight_of(folder: str, config: DeerConfig) -> Sight:
    """The vision part of a model directory, for a new model of `config`.

    Raises ValueError where it is made otherwise than `config` says, else as `load_model`.
    """
    loaded = load_model(folder, dtype=torch.float32)
    theirs = loaded.model.config
    for part in ("vision", "resampler"):
        has, wanted = getattr(theirs, part), getattr(config, part)
        if has != wanted:
            raise ValueError(
                f"vision.start_from is {folder}, whose {part} is {has}; model.{part} is {wanted}. "
                "Make them alike, or leave vision.start_from out."
            )
    return Sight(loaded.model.tower, loaded.model.resampler, loaded.preprocessor)


def new_model(
    config: DeerConfig,
    frames: Frames,
    learned: np.ndarray,
    sentences: Collection[str],
    seed: int,
    sight: Sight | None = None,
) -> Start:
    """Random weights, closed gates, a tokenizer of all words in the instructions and `sentences`.

    Where `config` does not say how proprioception is normalised, the frames that are `learned` do.
    sight: the vision part that it gets instead of a random one.
    Raises ValueError where the vocabulary is too small, and for what is too long to be said.
    """
    texts = sorted({*frames.instructions, *sentences})
    tokenizer, ids = word_tokenizer(texts)
    prompts = PromptEncoder(tokenizer, replace(ids, max_tokens=config.prompt.max_tokens))
    for text in texts:  # Now, and not after the phases that read no text.
        prompts.encode(text)
    vocabulary = config.language.vocabulary
    if len(tokenizer) > vocabulary:
        raise ValueError(
            f"model.language.vocabulary is {vocabulary}; the instructions make {len(tokenizer)} "
            "tokens."
        )
    config = config.replace(prompt=prompts.config)
    if config.proprioception is not None:
        normalisation = _normalisation(config.proprioception, frames.proprioception[learned])
        config = config.replace(proprioception=normalisation)
    torch.manual_seed(seed)
    model = DeerModel(config)
    if sight is None:
        preprocessor = Preprocessor(config.vision.image_size, MEAN, STD)
    else:
        preprocessor = sight.preprocessor
        model.tower.load_state_dict(sight.tower.state_dict())
        model.resampler.load_state_dict(sight.resampler.state_dict())
    return Start(model, preprocessor, prompts, pretrained=False)


def prompts_without_words(config: DeerConfig) -> PromptEncoder:
    """Of a new model that has read no instruction yet: each word is unknown, and is counted."""
    tokenizer, ids = word_tokenizer([])
    return PromptEncoder(tokenizer, replace(ids, max_tokens=config.prompt.max_tokens))


def model_from(folder: str, trained_in: str | None = None) -> Start:
    """All of a model directory, in float32, without thresholds. Raises as `load_model`.

    trained_in: where what it learns now comes from; None: as it was.
    """
    loaded = load_model(folder, dtype=torch.float32)
    # They were solved for these weights, which are about to change.
    config = loaded.model.config
    loaded.model.config = config.replace(
        exits=replace(config.exits, thresholds=None), trained_in=trained_in or config.trained_in)
    return Start(loaded.model, loaded.preprocessor, loaded.prompts, pretrained=True)


def _normalisation(config: ProprioceptionConfig, sensed: np.ndarray) -> ProprioceptionConfig:
    std = sensed.std(axis=0, dtype=np.float64)
    std[std < CONSTANT] = 1.0
    mean = sensed.mean(axis=0, dtype=np.float64)
    return replace(
        config,
        mean=tuple(mean.tolist()) if config.mean is None else config.mean,
        std=tuple(std.tolist()) if config.std is None else config.std,
    )


def open_gates(model: DeerModel, gate: float) -> None:
    """Let a model trained from nothing see the pictures from its first step, if `gate` is above 0.

    Closed gates protect layers that know words; from them a small model learns slowly to look.
    """
    for layer in model.layers:
        if layer.cross_attention is not None:
            nn.init.constant_(layer.cross_attention.attention_gate, gate)
            nn.init.constant_(layer.cross_attention.feed_forward_gate, gate)
