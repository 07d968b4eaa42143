from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deer_ros.budget.criterion import agrees, delta, values
from deer_ros.model.config import COMPARING

poses = arrays(np.float32, (6,), elements=st.floats(-1, 1, width=32))
distances = st.sampled_from(["l2", "mean", "max"])


@given(a=poses, b=poses, metric=st.sampled_from(COMPARING))
def test_a_delta_is_symmetric_finite_and_not_below_zero(a, b, metric):
    value = delta(a, b, metric)
    assert value.dtype == np.float32 and np.ndim(value) == 0
    assert np.isfinite(value)
    assert value >= -1e-6
    assert value == pytest.approx(delta(b, a, metric), abs=1e-6)


@given(a=poses, metric=distances)
def test_a_pose_agrees_with_itself(a, metric):
    assert delta(a, a, metric) == 0.0


@given(a=poses, b=poses)
def test_the_metrics_are_ordered_mean_l2_max(a, b):
    mean, l2, largest = (delta(a, b, metric) for metric in ("mean", "l2", "max"))
    assert mean <= l2 + 1e-6
    assert l2 <= largest + 1e-6


@given(a=poses, b=poses, c=poses, metric=distances)
def test_the_triangle_holds(a, b, c, metric):
    assert delta(a, c, metric) <= delta(a, b, metric) + delta(b, c, metric) + 1e-5


@given(a=poses, b=poses)
def test_l2_is_the_root_mean_square_not_the_euclidean_norm(a, b):
    euclidean = np.linalg.norm(a.astype(np.float64) - b)
    assert delta(a, b) == pytest.approx(euclidean / math.sqrt(6), rel=1e-4, abs=1e-6)


@given(a=poses, b=poses)
def test_cosine_is_one_minus_the_similarity_that_torch_computes(a, b):
    expected = 1 - torch.cosine_similarity(torch.from_numpy(a), torch.from_numpy(b), dim=-1)
    assert delta(a, b, "cosine") == pytest.approx(float(expected), abs=1e-5)


@given(rows=arrays(np.float32, (4, 3, 6), elements=st.floats(-1, 1, width=32)),
       metric=st.sampled_from(COMPARING))
def test_many_poses_at_once_give_what_each_gives_alone(rows, metric):
    together = delta(rows, rows[::-1], metric)
    assert together.shape == (4, 3)
    alone = [[delta(a, b, metric) for a, b in zip(r, s)] for r, s in zip(rows, rows[::-1])]
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="metric is 'L2'; allowed are l2, mean, max, cosine"):
        delta(np.zeros(6), np.zeros(6), "L2")


@pytest.mark.parametrize("threshold", [-math.inf, 0.0, 1.0, math.inf])
def test_a_nan_never_agrees(threshold):
    assert not agrees(math.nan, threshold)
    assert not agrees(float(delta(np.full(6, np.nan), np.zeros(6))), threshold)


def test_a_delta_equal_to_its_threshold_agrees():
    assert agrees(0.5, 0.5) and not agrees(0.5, 0.49)


def test_a_learned_value_is_the_heads_guess_and_needs_one():
    poses = np.zeros((4, 3, 6), np.float32)
    guesses = np.arange(12, dtype=np.float32).reshape(4, 3)
    assert values(poses, None, guesses, "learned") is guesses
    with pytest.raises(ValueError, match="the metric is learned, but there are no guesses"):
        values(poses, None, None, "learned")
    with pytest.raises(ValueError, match="metric is 'learned'; allowed are l2, mean, max, cosine"):
        delta(poses, poses, "learned")


@given(rows=arrays(np.float32, (4, 3, 6), elements=st.floats(-1, 1, width=32)),
       metric=st.sampled_from(COMPARING))
def test_values_compare_each_exit_with_the_one_before_it(rows, metric):
    found = values(rows, None, None, metric)
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_array_equal(found[:, 1:], delta(rows[:, 1:], rows[:, :-1], metric))
    with_reference = values(rows[:, 1:], rows[:, 0], None, metric)
    np.testing.assert_array_equal(with_reference, found[:, 1:])
