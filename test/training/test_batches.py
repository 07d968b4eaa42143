from __future__ import annotations

import numpy as np
import pytest
import torch

from deer_ros.training.dataset import Frames
from deer_ros.training.instructions import Instructions
from deer_ros.training.windows import WindowBatches

LENGTHS = (5, 40, 12)


def batches(meanings=None, instructions=("a", "a", "a"), **how) -> WindowBatches:
    count = sum(LENGTHS)
    frames = Frames(
        pictures=np.zeros((count, 2, 4, 4, 3), np.uint8),
        actions=np.repeat(np.arange(len(LENGTHS)), LENGTHS)[:, None] * np.ones((1, 7), np.float32),
        states=np.zeros((count, 0), np.float32),
        starts=np.concatenate([[0], np.cumsum(LENGTHS)]),
        instructions=instructions,
    )
    told = Instructions(instructions, lambda text: np.array([1, 2, 3]), 0, {}, meanings)

    def look(numbers, cuts):
        return torch.zeros(len(numbers), 2, 4)

    return WindowBatches(
        frames, look, told, np.arange(len(LENGTHS)), 12, **how
    )


@pytest.mark.parametrize(
    ("episodes_alike", "shares"),
    [(False, (1 / 31, 29 / 31, 1 / 31)), (True, (1 / 3, 1 / 3, 1 / 3))],
)
def test_windows_are_drawn_by_their_number_or_every_episode_alike(episodes_alike, shares):
    drawn = batches(episodes_alike=episodes_alike).draw(np.random.default_rng(0), 6000)
    episodes = drawn.actions[:, 0, 0].long().numpy()
    found = np.bincount(episodes, minlength=3) / 6000
    np.testing.assert_allclose(found, shares, atol=0.03)


def test_no_window_reaches_into_the_next_episode():
    drawn = batches(episodes_alike=True).draw(np.random.default_rng(1), 500)
    assert bool((drawn.actions == drawn.actions[:, :1]).all())
    short = drawn.actions[:, 0, 0] == 0
    assert bool((drawn.valid.sum(dim=1) == torch.where(short, 5, 12)).all())


def test_windows_know_what_they_are_told_means_where_that_is_known():
    drawn = batches({"open": 3, "shut": 1}, ("open", "what", "shut"), episodes_alike=True).draw(
        np.random.default_rng(0), 60
    )
    assert drawn.meant.shape == (60, 12)
    of_episode = torch.tensor([3, -1, 1])
    assert torch.equal(drawn.meant, of_episode[drawn.actions[..., 0].long()])
