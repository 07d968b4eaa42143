from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deer_ros.model.preprocessing import Preprocessor, check_picture


@given(height=st.integers(3, 90), width=st.integers(3, 90))
@settings(max_examples=40)
def test_every_picture_becomes_a_square(height, width):
    picture = np.full((height, width, 3), 128, np.uint8)
    out = Preprocessor(16).resize(picture)
    assert out.shape == (16, 16, 3)
    assert out.dtype == np.uint8
    assert (out == 128).all()


def test_a_wide_picture_keeps_its_middle():
    picture = np.zeros((16, 48, 3), np.uint8)
    picture[:, 16:32] = 255
    assert (Preprocessor(16).resize(picture) == 255).all()


def test_channels_keep_their_order_and_are_normalised():
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[..., 0], picture[..., 2] = 255, 51
    out = Preprocessor(8, mean=(0.5, 0.0, 0.1), std=(0.5, 1.0, 0.2))(picture)
    assert out.shape == (3, 8, 8) and out.dtype == np.float32
    np.testing.assert_allclose(out[:, 3, 3], [1.0, 0.0, 0.5], atol=1e-6)


def test_a_view_with_padded_or_reversed_rows_is_read_right():
    full = np.random.default_rng(0).integers(0, 256, (20, 40, 3), dtype=np.uint8)
    view = full[::-1, 5:30, ::-1]
    expected = Preprocessor(16).resize(np.ascontiguousarray(view))
    np.testing.assert_array_equal(Preprocessor(16).resize(view), expected)


@pytest.mark.parametrize(
    ("picture", "complaint"),
    [
        (None, "of type NoneType"),
        ([[0]], "of type list"),
        (np.zeros((4, 4, 3), np.float32), "of type float32"),
        (np.zeros((4, 4), np.uint8), r"has shape \(4, 4\)"),
        (np.zeros((4, 4, 4), np.uint8), r"has shape \(4, 4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"has shape \(0, 4, 3\)"),
        (np.zeros((3, 4, 4), np.uint8), r"has shape \(3, 4, 4\)"),
        (np.zeros((1, 10**6, 3), np.uint8), "has 1 x 1000000 pixels; its longer side must be at"),
        (np.zeros((67, 2, 3), np.uint8), "at most 32 times its shorter"),
    ],
)
def test_what_is_no_picture_is_refused(picture, complaint):
    with pytest.raises(ValueError, match=complaint):
        check_picture(picture)


def test_a_preprocessor_survives_its_file(tmp_path):
    preprocessor = Preprocessor(96, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    preprocessor.save(tmp_path / "p.json")
    assert Preprocessor.load(tmp_path / "p.json") == preprocessor


@pytest.mark.parametrize("values", [
    {}, [], {"size": 96}, {"size": {"shortest_edge": 96}},
    {"size": {"shortest_edge": "96"}, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
    {"size": {"shortest_edge": 0}, "image_mean": [0, 0, 0], "image_std": [1, 1, 1]},
    {"size": {"shortest_edge": 96}, "image_mean": [0, 0], "image_std": [1, 1, 1, 1]},
    {"size": {"shortest_edge": 96}, "image_mean": [0, 0, 0], "image_std": [1, 0, 1]},
    {"size": {"shortest_edge": 96}, "image_mean": [0, 0, float("nan")], "image_std": [1, 1, 1]},
    {"size": {"shortest_edge": 96}, "image_mean": ["a", 0, 0], "image_std": [1, 1, 1]},
    {"size": {"shortest_edge": 96}, "image_mean": 0.5, "image_std": [1, 1, 1]},
])
def test_a_wrong_file_is_named(tmp_path, values):
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="preprocessor_config.json"):
        Preprocessor.load(file)
