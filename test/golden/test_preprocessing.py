"""Resizing and cropping, to the bit."""

from __future__ import annotations

import golden_data as golden
import numpy as np
import pytest

from deer_ros.model.preprocessing import CLIP_MEAN, CLIP_STD, Preprocessor

KEYS = [name.removeprefix("in_") for name in golden.arrays("preprocess224") if name[:3] == "in_"]


@pytest.mark.parametrize("key", KEYS)
def test_a_camera_picture_comes_out_with_the_originals_pixels(key):
    arrays = golden.arrays("preprocess224")
    out = Preprocessor(224).resize(arrays[f"in_{key}"])
    np.testing.assert_array_equal(out, arrays[f"out_u8_{key}"])


@pytest.mark.parametrize("key", KEYS)
def test_a_normalised_picture_has_the_originals_mean_and_spread(key):
    arrays = golden.arrays("preprocess224")
    tensor = Preprocessor(224)(arrays[f"in_{key}"]).astype(np.float64)
    golden.assert_close([tensor.mean(), tensor.std()], arrays[f"out_mean_std_{key}"], key)


def test_the_normalisation_is_the_originals():
    arrays = golden.arrays("preprocess224")
    np.testing.assert_array_equal(CLIP_MEAN, arrays["mean"])
    np.testing.assert_array_equal(CLIP_STD, arrays["std"])
