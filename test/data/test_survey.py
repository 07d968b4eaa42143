from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from episodes import make_episode

from deer_ros.data.episode import Episode
from deer_ros.data.survey import Survey


def at(rate_hz: float, source: str = "kitchen") -> Episode:
    episode = make_episode(8)
    stamps_ns = np.round(np.arange(8) * 1e9 / rate_hz).astype(np.int64)
    return dataclasses.replace(episode, stamps_ns=stamps_ns, source=source)


def moving(largest: float, source: str = "kitchen") -> Episode:
    episode = make_episode(8)
    episode.actions[:, :6] = np.linspace(-largest, largest, 48, dtype=np.float32).reshape(8, 6)
    return dataclasses.replace(episode, source=source)


def surveyed(*episodes: Episode) -> Survey:
    survey = Survey(20.0)
    assert list(survey.watched(episodes)) == list(episodes)
    return survey


def test_nothing_is_said_of_what_is_as_it_should_be():
    single = dataclasses.replace(make_episode(1), actions=None)
    survey = surveyed(at(20.0), at(18.0), at(23.0), moving(1.0), single)
    assert survey.pace() is None and survey.reach() is None
    assert surveyed().pace() is None and surveyed().reach() is None


@pytest.mark.parametrize("rate_hz", [10.0, 30.0])
def test_frames_at_another_rate_are_named(rate_hz):
    said = surveyed(at(20.0), at(rate_hz, "garage"), at(20.0)).pace()
    assert "1 of 3 episodes" in said and f"{rate_hz:g} Hz in garage" in said
    assert "model's 20 Hz" in said


def test_a_hole_in_the_frames_is_no_other_rate():
    episode = at(20.0)
    episode.stamps_ns[4:] += 400_000_000
    assert surveyed(episode).pace() is None


def test_actions_beyond_what_a_model_answers_are_named_unless_they_are_rare():
    said = surveyed(moving(1.0), moving(4.0, "garage")).reach()
    assert "38 % of the demonstrated pose values" in said and "as 4 in garage" in said
    slip = moving(1.0)
    slip.actions[3, 2] = -1.5
    assert surveyed(slip, *[moving(0.5)] * 3).reach() is None
