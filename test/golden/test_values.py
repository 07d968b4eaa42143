"""Answers gathered on demonstrations as the authors gather them, and the criterion's values."""

from __future__ import annotations

import golden_data
import numpy as np
import pytest
import torch
from golden_data import assert_close

from deer_ros.budget.calibration import Calibration
from deer_ros.calibration.original import window_answers
from deer_ros.model.action_head import pool


def test_the_authors_values_come_out_of_their_windows():
    golden = golden_data.arrays("values")
    head = golden_data.golden_policy().model.head
    exits = golden["exit_layers"].tolist()
    windows = golden["sampled_layers"].shape[1]
    values = []
    for hidden, drawn in zip(golden["hidden"], golden["sampled_layers"]):
        layers = torch.from_numpy(hidden).unflatten(0, (windows, -1)).unbind(2)
        features = torch.stack([pool(x.flatten(0, 1)).unflatten(0, x.shape[:2]) for x in layers], 2)
        after = tuple(range(1, len(layers) + 1))
        answers = window_answers(head, features, torch.from_numpy(drawn), 0, exits, after)
        steps = len(answers.poses)
        calibration = Calibration(
            exit_layers=tuple(layer + 1 for layer in exits),
            poses=answers.poses,
            gripper=answers.gripper,
            reference_poses=answers.reference_poses,
            episode=np.repeat(np.arange(windows), steps // windows).astype(np.int32),
            taken=answers.taken,
            fingerprint="golden",
            method="original",
        )
        values.append(calibration.deltas("l2"))
        kept = drawn[:, drawn.shape[1] // 2 - 1 : -1].reshape(-1)
        assert np.array_equal(np.array(exits)[answers.taken], kept)
    assert_close(np.concatenate(values, axis=1), golden["values"], "values")


def test_windows_that_are_too_short_are_told():
    from deer_ros.calibration.features import Features
    from deer_ros.calibration.original import draw_windows

    head = golden_data.golden_policy().model.head
    width = head.lstm[0].weight_ih_l0.shape[1]
    features = Features(torch.zeros(11, 2, width), (1, 2), np.array([0, 11]))
    with pytest.raises(ValueError, match="the longest has 11"):
        draw_windows(head, features, (2,), 600, 0)
