"""Windows are told paraphrases of what was said as they were demonstrated, and nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_runs import Recorder, config, made_up_episodes

from deer_ros.training.instructions import Instructions, paraphrases_of
from deer_ros.training.run import TrainingRun

WORDS = st.text("abc", min_size=1, max_size=4)
KINDS = st.lists(st.dictionaries(WORDS, st.sampled_from("RGB"), min_size=1), max_size=4)


def encode(text: str) -> np.ndarray:
    return np.array([1 + "abc".index(letter) for letter in text])


def said(instructions: Instructions, rows: np.ndarray) -> list[str]:
    return [
        "".join("abc"[token - 1] for token in instructions.ids[row][instructions.masks[row]])
        for row in rows
    ]


def one_meaning_each(kinds: list[dict[str, str]]) -> list[dict[str, str]]:
    """The kinds with every text meaning the same in all of them."""
    meanings = {text: meant for kind in kinds for text, meant in kind.items()}
    return [{text: meanings[text] for text in kind} for kind in kinds]


@given(st.lists(WORDS, min_size=1, max_size=6), KINDS, st.integers(0, 2**32))
def test_what_is_said_means_what_was_said(texts, kinds, seed):
    kinds = one_meaning_each(kinds)
    meanings = {text: meant for kind in kinds for text, meant in kind.items()}
    told = Instructions(texts, encode, 0, paraphrases_of(set(texts), kinds))
    episodes = np.arange(len(texts)).repeat(5)
    for number, text in zip(episodes, said(told, told.draw(np.random.default_rng(seed), episodes))):
        own = texts[number]
        assert text == own if own not in meanings else meanings[text] == meanings[own]


def test_kinds_of_paraphrases_are_alike_and_sentences_within_a_kind():
    kinds = [{"a": "R", "b": "G"}, {"aa": "R", "aaa": "R", "bb": "G"}]
    told = Instructions(("a", "b"), encode, 0, paraphrases_of({"a", "b"}, kinds))
    rows = told.draw(np.random.default_rng(0), np.zeros(8000, int))
    shares = {text: count / 8000 for text, count in Counter(said(told, rows)).items()}
    assert shares == pytest.approx({"a": 0.5, "aa": 0.25, "aaa": 0.25}, abs=0.02)


def test_without_paraphrases_an_episode_is_told_its_own_instruction():
    told = Instructions(("a", "b", "a"), encode, 0, {})
    rows = told.draw(np.random.default_rng(0), np.array([2, 1, 0]))
    assert said(told, rows) == ["a", "b", "a"]


def run(folder, heard: Recorder) -> TrainingRun:
    kinds = [{"open the drawer": "open"}, {"draw it open": "open", "open it now": "open"}]
    return TrainingRun(
        config(paraphrases=True), made_up_episodes(), folder, heard, sentences=kinds
    )


def test_every_step_of_a_window_is_told_the_same(tmp_path):
    trained = run(tmp_path, Recorder())
    batch, = trained._windows(trained._look(), 16)[0](np.random.default_rng(0))
    told = batch.ids.unflatten(0, (16, 4))
    assert bool((told == told[:, :1]).all())
    # Three that mean open, and to close the drawer.
    assert len({tuple(row.tolist()) for row in told[:, 0]}) == 4


def test_validation_is_told_what_was_said(tmp_path):
    trained = run(tmp_path, Recorder())
    held = trained._batches(trained._look(), trained.validation, whole=True)
    assert held.instructions.others == {}


@pytest.mark.long
def test_a_run_with_paraphrases_goes_on_after_a_kill_as_if_there_had_been_none(tmp_path):
    whole, resumed = Recorder(), Recorder()
    run(tmp_path / "whole", whole)()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", Recorder(stop_at=("policy", 3)))()
    run(tmp_path / "killed", resumed)()
    last = "policy", 6
    assert resumed.lines[last]["total"] == whole.lines[last]["total"]


def test_paraphrases_without_meanings_are_refused_before_anything_is_trained(tmp_path):
    with pytest.raises(ValueError, match=r"policy\.paraphrases ask for instructions"):
        TrainingRun(config(paraphrases=True), made_up_episodes(), tmp_path, Recorder())
