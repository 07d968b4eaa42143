"""Pictures are moved where they are learned from, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from made_up_runs import Recorder, config, made_up_episodes

from deer_ros.training.run import TrainingRun
from deer_ros.training.shift import moves_of, shifted


def test_a_picture_is_moved_by_what_is_drawn_and_its_edges_are_repeated():
    pictures = np.arange(2 * 25 * 3, dtype=np.uint8).reshape(1, 2, 5, 5, 3)
    moved = shifted(pictures, np.array([[[1, -2], [0, 0]]]))
    np.testing.assert_array_equal(moved[0, 0, 2:, :4], pictures[0, 0, :3, 1:])
    np.testing.assert_array_equal(moved[0, 0, 2:, 4], pictures[0, 0, :3, 4])
    np.testing.assert_array_equal(moved[0, 0, 0], moved[0, 0, 2])
    np.testing.assert_array_equal(moved[0, 1], pictures[0, 1])


def test_every_move_up_to_the_cameras_own_is_drawn():
    moves = moves_of(np.random.default_rng(0), (500,), (2, 1))
    assert moves.shape == (500, 2, 2)
    assert [set(moves[:, camera].flat) for camera in (0, 1)] == [{-2, -1, 0, 1, 2}, {-1, 0, 1}]


@pytest.mark.parametrize("shift_px", [(0, 0), (3, 2)])
def test_validation_sees_the_pictures_as_they_are(tmp_path, shift_px):
    setting = config(shift_px=shift_px, trained=("resampler",))
    run = TrainingRun(setting, made_up_episodes(), tmp_path, Recorder())
    learned, held = run._windows(run._look(), 4)
    as_they_are = set(map(_bytes, torch.from_numpy(
        run.start.preprocessor.normalise(run.frames.pictures)
    )))
    assert set(map(_bytes, held()[0].vision)) <= as_they_are
    (drawn,) = learned(np.random.default_rng(0))
    assert (set(map(_bytes, drawn.vision)) <= as_they_are) == (not any(shift_px))


def _bytes(pictures: torch.Tensor) -> bytes:
    return pictures.numpy().tobytes()
