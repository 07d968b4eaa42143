"""The two samplings of exits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.training.sampling import exit_per_step, exit_per_stretch

seeds = st.integers(0, 2**32 - 1)
sizes = st.tuples(seeds, st.integers(1, 8), st.integers(1, 12), st.integers(1, 6))


@given(sizes)
def test_every_step_draws_an_exit_of_the_model(drawn):
    seed, windows, steps, exits = drawn
    chosen = exit_per_step(np.random.default_rng(seed), windows, steps, exits)
    assert chosen.shape == (windows, steps)
    assert chosen.min() >= 0 and chosen.max() < exits


@given(sizes)
def test_stretches_change_at_one_step_that_all_windows_share(drawn):
    seed, windows, steps, exits = drawn
    chosen = exit_per_stretch(np.random.default_rng(seed), windows, steps, exits)
    assert chosen.min() >= 0 and chosen.max() < exits
    changes = {int(step) for row in chosen for step in np.flatnonzero(np.diff(row))}
    assert len(changes) <= 1


def test_all_exits_are_drawn_about_equally_often():
    rng = np.random.default_rng(0)
    for draw in (exit_per_step, exit_per_stretch):
        chosen = np.concatenate([draw(rng, 64, 12, 4).ravel() for _ in range(50)])
        shares = np.bincount(chosen, minlength=4) / chosen.size
        assert np.all(np.abs(shares - 0.25) < 0.03)
