from __future__ import annotations

import cv2
import numpy as np
import pytest
from episodes import smooth_pictures
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.data.images import decode
from deer_ros.data.jpeg import encode_jpeg

RED, GREEN, BLUE = (220, 20, 20), (20, 220, 20), (20, 20, 220)


def stripes() -> np.ndarray:
    picture = np.zeros((24, 48, 3), np.uint8)
    for column, colour in zip((0, 16, 32), (RED, GREEN, BLUE)):
        picture[:, column : column + 16] = colour
    return picture


def test_red_stays_red_and_blue_stays_blue():
    decoded = decode(encode_jpeg(stripes()))
    assert np.abs(decoded.astype(int) - stripes()).max() < 12


@pytest.mark.skipif(
    not hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR"), reason="this OpenCV halves colours in JPEG"
)
def test_a_dot_of_two_pixels_keeps_its_colour():
    picture = np.full((32, 32, 3), 110, np.uint8)
    picture[14:16, 15:17] = RED
    decoded = decode(encode_jpeg(picture)).astype(int)
    assert (decoded[14:16, 15:17, 0] - decoded[14:16, 15:17, 2]).min() > 150


@given(st.integers(1, 70), st.integers(1, 70), st.tuples(*[st.integers(0, 255)] * 3))
def test_every_size_and_colour_survives(height, width, colour):
    picture = np.full((height, width, 3), colour, np.uint8)
    decoded = decode(encode_jpeg(picture))
    assert decoded.shape == picture.shape and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - picture).max() <= 8


def test_png_and_grey_pictures_are_read_too():
    _, png = cv2.imencode(".png", stripes()[..., ::-1])
    np.testing.assert_array_equal(decode(png), stripes())
    _, grey = cv2.imencode(".jpg", stripes()[..., 0])
    decoded = decode(grey.tobytes())
    assert decoded.shape == (24, 48, 3)
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])


def test_a_jpeg_that_was_cut_short_is_refused_and_padding_is_not():
    data = encode_jpeg(smooth_pictures(np.random.default_rng(0), 1, 64, 64)[0])
    for length in (3, len(data) // 2, len(data) - 1):
        with pytest.raises(ValueError, match="is cut off|cannot be read"):
            decode(data[:length])
    np.testing.assert_array_equal(decode(data + bytes(16)), decode(data))


@pytest.mark.parametrize("data", [b"", b"\xff", b"not a picture at all", b"\xff\xd8\xff\xd9"])
def test_what_is_no_picture_is_refused(data):
    with pytest.raises(ValueError, match="is empty|cannot be read"):
        decode(data)


@pytest.mark.parametrize(
    "shape, dtype", [((4, 4), np.uint8), ((4, 4, 3), float), ((4, 4, 4), np.uint8)]
)
def test_only_rgb_pictures_are_encoded(shape, dtype):
    with pytest.raises(ValueError, match=r"uint8 of shape \(height, width, 3\)"):
        encode_jpeg(np.zeros(shape, dtype))
