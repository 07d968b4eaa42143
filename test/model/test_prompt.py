from __future__ import annotations

import json

import pytest
import torch
from tiny_model import INSTRUCTIONS

from deer_ros.model.config import LanguageConfig, PromptConfig
from deer_ros.model.language import make_prompt
from deer_ros.model.prompt import PromptEncoder, word_tokenizer


@pytest.fixture
def encoder() -> PromptEncoder:
    return PromptEncoder(*word_tokenizer(INSTRUCTIONS))


def test_a_prompt_is_image_then_text_then_end_of_chunk_then_end_of_text(encoder):
    config = encoder.config
    ids = encoder.encode("open the drawer")
    assert ids.dtype.name == "int64"
    assert ids[0] == config.image_token
    assert list(ids[-2:]) == [config.end_of_chunk_token, config.end_of_text_token]
    assert encoder.tokenizer.decode(ids[1:-2]) == "open the drawer"


def test_outer_whitespace_is_no_part_of_an_instruction(encoder):
    assert list(encoder.encode("  open the drawer\n")) == list(encoder.encode("open the drawer"))


@pytest.mark.parametrize("instruction", ["", "   ", "\n\t"])
def test_an_empty_instruction_is_refused(encoder, instruction):
    with pytest.raises(ValueError, match="the instruction is empty"):
        encoder.encode(instruction)


def test_an_instruction_may_fill_the_prompt_but_is_never_cut(encoder):
    most = encoder.config.max_tokens - 3
    assert len(encoder.encode("open " * most)) == encoder.config.max_tokens
    with pytest.raises(ValueError, match="makes 33 tokens; this model takes 32"):
        encoder.encode("open " * (most + 1))


def test_bytes_that_are_no_text_are_refused(encoder):
    with pytest.raises(ValueError, match="holds bytes that are no UTF-8"):
        encoder.encode(b"open \xff".decode(errors="surrogateescape"))


@pytest.mark.parametrize("token", ["<image>", "<|endofchunk|>", "<|endoftext|>", "<PAD>"])
def test_the_models_own_tokens_may_not_be_typed(encoder, token):
    with pytest.raises(ValueError, match="one of the model's own tokens"):
        encoder.encode(f"open the {token} drawer")


def test_unknown_words_are_named(encoder):
    assert encoder.unknown_words("open the fridge") == ["fridge"]
    assert encoder.unknown_words("Open THE drawer") == []
    assert list(encoder.encode("open the fridge")) != list(encoder.encode("open the drawer"))


def test_a_tokenizer_survives_its_file(encoder, tmp_path):
    encoder.save(tmp_path)
    again = PromptEncoder.load(tmp_path, encoder.config)
    for instruction in [*INSTRUCTIONS, "an unknown word"]:
        assert list(again.encode(instruction)) == list(encoder.encode(instruction))
    assert again.unknown_words("open the fridge") == ["fridge"]


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", json.dumps({"model": {"type": "x"}})])
def test_a_broken_tokenizer_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ValueError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        PromptEncoder.load(tmp_path, PromptConfig())


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no tokenizer.json"):
        PromptEncoder.load(tmp_path, PromptConfig())


@pytest.mark.parametrize("ids", [[1, 2, 3], [9, 1, 9]])
def test_a_prompt_without_exactly_one_picture_is_refused(ids):
    ids = torch.tensor([ids])
    with pytest.raises(ValueError, match="it needs one"):
        make_prompt(ids, torch.zeros(1, 3, 8), LanguageConfig(width=8, heads=2), 9, None)


def test_tokens_before_the_picture_do_not_see_it():
    config = LanguageConfig(width=8, heads=2)
    prompt = make_prompt(torch.tensor([[4, 9, 5]]), torch.zeros(1, 3, 8), config, 9, None)
    assert prompt.sees_pictures.flatten().tolist() == [0, 1, 1]
