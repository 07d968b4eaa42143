"""Instructions to token ids: `<image>`, the text, `<|endofchunk|>`, the end of text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from deer_ros.model.config import PromptConfig

UNKNOWN = "<unk>"
END_OF_TEXT = "<|endoftext|>"
END_OF_CHUNK = "<|endofchunk|>"
IMAGE = "<image>"
PADDING = "<PAD>"


class PromptEncoder:
    """Instructions to ids with the tokenizer of a model directory."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, config: PromptConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config

    def encode(self, instruction: str) -> np.ndarray:
        """Text -> ids, (L,) int64.

        Raises ValueError where the text is empty or no Unicode, holds one of the model's own
        tokens, or makes more than `config.max_tokens` tokens: cut at its end it would lose the
        end-of-chunk token that the model was trained with.
        """
        text = instruction.strip()
        if not text:
            raise ValueError("the instruction is empty; say what the robot should do.")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(
                f"the instruction {text!r} holds bytes that are no UTF-8; say it in Unicode text."
            )
        words = self.tokenizer.encode(text, add_special_tokens=False)
        config = self.config
        if set(words) & set(config.special_tokens):
            raise ValueError(
                f"the instruction {text!r} holds one of the model's own tokens, such as {IMAGE}; "
                "they are added for you."
            )
        ids = [config.image_token, *words, config.end_of_chunk_token, config.end_of_text_token]
        if len(ids) > config.max_tokens:
            raise ValueError(
                f"the instruction {text!r} makes {len(ids)} tokens; this model takes "
                f"{config.max_tokens}, three of them its own. Say it in fewer words."
            )
        return np.array(ids, dtype=np.int64)

    def unknown_words(self, instruction: str) -> list[str]:
        """Words of the text that the tokenizer knows only as unknown."""
        unknown = self.tokenizer.unk_token_id
        if unknown is None:
            return []
        words = instruction.split()
        return [w for w in words if unknown in self.tokenizer.encode(w, add_special_tokens=False)]

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files."""
        self.tokenizer.save_pretrained(str(folder))

    @classmethod
    def load(cls, folder: str | Path, config: PromptConfig) -> PromptEncoder:
        """Read the tokenizer's files from a model directory, never from a network."""
        file = Path(folder) / "tokenizer.json"
        if not file.is_file():
            raise FileNotFoundError(f"{folder} has no tokenizer.json; a model directory needs it.")
        try:
            tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file))
        except Exception as error:  # the library raises a bare Exception on a broken file
            raise ValueError(f"{file} cannot be read as a tokenizer: {error}.") from error
        if tokenizer.convert_tokens_to_ids(UNKNOWN) is not None:
            tokenizer.unk_token = UNKNOWN
        return cls(tokenizer, config)


def word_tokenizer(instructions: list[str]) -> tuple[PreTrainedTokenizerFast, PromptConfig]:
    """A tokenizer of whole lower-case words, for small models, and its special tokens' ids."""
    words = sorted({word for text in instructions for word in text.lower().split()})
    fast = vocabulary_tokenizer({w: i for i, w in enumerate([END_OF_TEXT, UNKNOWN, *words])})
    fast.add_tokens([END_OF_CHUNK, IMAGE, PADDING], special_tokens=True)
    ids = [fast.convert_tokens_to_ids(t) for t in (IMAGE, END_OF_CHUNK, END_OF_TEXT, PADDING)]
    return fast, PromptConfig(*ids)


def vocabulary_tokenizer(vocabulary: Mapping[str, int]) -> PreTrainedTokenizerFast:
    """A tokenizer of whole lower-case words with these ids; `<unk>` must be one of them."""
    tokenizer = Tokenizer(models.WordLevel(dict(vocabulary), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = (END_OF_TEXT, END_OF_CHUNK, IMAGE, PADDING)
    tokenizer.add_special_tokens([token for token in special if token in vocabulary])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token=UNKNOWN)
