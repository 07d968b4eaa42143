"""Which frames of demonstrations a calibration takes for steps."""

from __future__ import annotations

import numpy as np
from episodes import make_episode
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.calibration.features import at_steps
from deer_ros.data.episode import Episode


def at(seconds: np.ndarray) -> Episode:
    return make_episode(len(seconds), stamps_ns=np.round(1e9 * seconds).astype(np.int64))


@given(executions=st.integers(1, 10), frames=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_so_many_frames_are_taken_however_the_cameras_tremble(executions, frames, seed):
    trembling = np.random.default_rng(seed).uniform(-0.2, 0.2, frames)
    episode = at((np.arange(frames) + 10 + trembling) / 30)
    taken = at_steps(episode, 30 / executions)
    first, *others = np.searchsorted(episode.stamps_ns, taken.stamps_ns)
    assert first == 0 and set(np.diff([first, *others])) <= {executions}
    assert len(taken) == -(-frames // executions)
    for name in ("static", "gripper", "actions", "proprioception", "state"):
        np.testing.assert_array_equal(
            getattr(taken, name), getattr(episode, name)[[first, *others]]
        )


@given(rate_hz=st.floats(1, 10), frames=st.integers(1, 40))
def test_frames_that_come_no_faster_than_steps_are_all_taken(rate_hz, frames):
    episode = at(np.arange(frames) / rate_hz)
    assert len(at_steps(episode, 10.0)) == frames


def test_a_hole_in_the_frames_costs_no_step_beside_it():
    seconds = np.concatenate([np.arange(10), np.arange(40, 50)]) / 30
    taken = at_steps(at(seconds), 10.0).stamps_ns
    assert list(np.round(30e-9 * taken)) == [0, 3, 6, 9, 40, 42, 45, 48]
