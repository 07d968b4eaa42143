"""The language model's tokenizer with the tokens that DeeR adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from deer_ros.model.config import DeerConfig
from deer_ros.model.prompt import (
    END_OF_CHUNK,
    END_OF_TEXT,
    IMAGE,
    PADDING,
    UNKNOWN,
    PromptEncoder,
    vocabulary_tokenizer,
)


def official_prompts(
    tokenizer: str | Path | None, description: Mapping[str, Any], config: DeerConfig
) -> PromptEncoder:
    """Prompts with a tokenizer.json (or its folder), or with the description's `vocabulary`.

    Raises ValueError where the special tokens do not get the ids that the model was trained with.
    """
    if tokenizer is not None:
        loaded = PromptEncoder.load(_folder(tokenizer), config.prompt).tokenizer
    elif isinstance(description.get("vocabulary"), Mapping):
        _check_vocabulary(description["vocabulary"], config.language.vocabulary)
        loaded = vocabulary_tokenizer(description["vocabulary"])
    else:
        raise ValueError(
            "no tokenizer is given: name the tokenizer.json of the language model, or its folder."
        )
    _add_special_tokens(loaded)
    _check_ids(loaded, config)
    return PromptEncoder(loaded, config.prompt)


def _check_vocabulary(words: Mapping[str, Any], size: int) -> None:
    if UNKNOWN not in words:
        raise ValueError(f"the description's vocabulary has no {UNKNOWN}, which stands for others.")
    for word, id in words.items():
        if not isinstance(id, int) or isinstance(id, bool) or not 0 <= id < size:
            raise ValueError(
                f"vocabulary.{word} is {id!r}; it must be a whole number from 0 to {size - 1}."
            )


def _folder(tokenizer: str | Path) -> Path:
    path = Path(tokenizer)
    if path.is_file() and path.name != "tokenizer.json":
        raise ValueError(f"{path} is no tokenizer.json; name that file, or the folder it is in.")
    return path.parent if path.is_file() else path


def _add_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """As the authors do, in this order: it makes the ids."""
    for token in (END_OF_CHUNK, IMAGE, PADDING):
        tokenizer.add_tokens([token], special_tokens=True)


def _check_ids(tokenizer: PreTrainedTokenizerFast, config: DeerConfig) -> None:
    tokens = (IMAGE, END_OF_CHUNK, END_OF_TEXT, PADDING)
    found = dict(zip(tokens, tokenizer.convert_tokens_to_ids(list(tokens))))
    wanted = dict(zip(tokens, config.prompt.special_tokens))
    if found != wanted:
        raise ValueError(
            f"the tokenizer gives the special tokens the ids {found}; the model was trained with "
            f"{wanted}. It is not the tokenizer of this model."
        )
    if len(tokenizer) > config.language.vocabulary:
        raise ValueError(
            f"the tokenizer has {len(tokenizer)} tokens; the model's vocabulary has "
            f"{config.language.vocabulary}."
        )
