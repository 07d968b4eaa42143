from __future__ import annotations

import math
import time

import pytest
import stillness
from stillness import Stillness, on_time


class Trial:
    """Fails as often as is asked for."""

    def __init__(self, failures: int):
        self.failures, self.made = failures, 0

    def __call__(self) -> None:
        self.made += 1
        assert self.made > self.failures, f"failure {self.made}"


def test_a_machine_that_wakes_nobody_is_noticed(monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr(stillness.time, "sleep", lambda duration_s: sleep(duration_s + 0.2))
    with Stillness() as still:
        pass
    assert still.longest_s >= 0.2 > stillness.NOTICED_S


def test_a_failure_counts_at_once_where_the_machine_ran(monkeypatch):
    monkeypatch.setattr(stillness, "NOTICED_S", math.inf)
    trial = Trial(1)
    with pytest.raises(AssertionError, match="failure 1"):
        on_time(trial)
    assert trial.made == 1


def test_a_failure_while_the_machine_stood_still_is_tried_again_but_not_for_ever(monkeypatch):
    monkeypatch.setattr(stillness, "NOTICED_S", -1.0)
    on_time(Trial(2), tries=3)
    with pytest.raises(AssertionError, match="failure 3"):
        on_time(Trial(3), tries=3)
