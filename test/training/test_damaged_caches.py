"""Frames that a run keeps to go on with, cut short as a full disk leaves them."""

from __future__ import annotations

import re

import numpy as np
import pytest
from made_up_runs import made_up_episodes

from deer_ros.training.dataset import Needs, load_frames


@pytest.mark.parametrize("kept", [0, 0.5])
@pytest.mark.parametrize(
    "name", ["done.json", "pictures.u8", "actions.npy", "states.npy", "starts.npy"]
)
def test_cut_frames_are_named_and_made_anew_when_they_are_deleted(tmp_path, name, kept):
    cache = tmp_path / "frames"
    whole = np.array(load_frames(made_up_episodes(), 32, cache, Needs()).pictures)
    data = (cache / name).read_bytes()
    (cache / name).write_bytes(data[: int(kept * len(data))])
    said = f"{re.escape(str(cache / name))} cannot be read .*; delete {re.escape(str(cache))}, and"
    with pytest.raises(ValueError, match=said):
        load_frames([], 32, cache, Needs())
    (cache / "done.json").unlink()
    again = load_frames(made_up_episodes(), 32, cache, Needs())
    np.testing.assert_array_equal(again.pictures, whole)
