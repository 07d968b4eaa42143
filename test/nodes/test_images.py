from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sensor_msgs", reason="ROS 2 messages are not installed")
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from deer_ros.data import images  # noqa: E402
from deer_ros.nodes.images import to_rgb as to_rgb_with_cv_bridge  # noqa: E402

HEIGHT, WIDTH = 24, 32


def picture() -> np.ndarray:
    """Four fields, red, green, blue and yellow: any swap, shear or shift shows."""
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    top, left = HEIGHT // 2, WIDTH // 2
    rgb[:top, :left] = (220, 30, 40)
    rgb[:top, left:] = (30, 200, 50)
    rgb[top:, :left] = (20, 40, 210)
    rgb[top:, left:] = (230, 220, 30)
    return rgb


PICTURE = picture()
GREY = cv2.cvtColor(PICTURE, cv2.COLOR_RGB2GRAY)
GREY_RGB = np.repeat(GREY[:, :, None], 3, axis=2)


def mosaic(pattern: str, depth=np.uint8) -> np.ndarray:
    """What a sensor with this pattern of colour filters sees."""
    raw = np.zeros((HEIGHT, WIDTH), np.uint8)
    for index, colour in enumerate(pattern):
        row, column = divmod(index, 2)
        raw[row::2, column::2] = PICTURE[row::2, column::2, "rgb".index(colour)]
    return raw if depth is np.uint8 else raw.astype(np.uint16) * 257


def yuv422(order: str) -> np.ndarray:
    """Two bytes a pixel: its own brightness, and one of the two colours of a pair of pixels."""
    y, u, v = np.moveaxis(yuv(), 2, 0)
    luma, chroma = y, np.where(np.arange(WIDTH) % 2 == 0, u, np.roll(v, 1, axis=1))
    return np.stack([chroma, luma] if order == "uyvy" else [luma, chroma], axis=2)


def yuv() -> np.ndarray:
    """Brightness 16 to 235 and colours 16 to 240, as ITU-R BT.601 defines them."""
    r, g, b = np.moveaxis(PICTURE.astype(float), 2, 0)
    y = 16 + (65.738 * r + 129.057 * g + 25.064 * b) / 256
    u = 128 + (-37.945 * r - 74.494 * g + 112.439 * b) / 256
    v = 128 + (112.439 * r - 94.154 * g - 18.285 * b) / 256
    return np.stack([y, u, v], axis=2).round().astype(np.uint8)


def semi_planar(order: str) -> np.ndarray:
    """A plane of brightness, then one with both colours of every square of four pixels."""
    y, u, v = np.moveaxis(yuv(), 2, 0)
    pair = (u, v) if order == "uv" else (v, u)
    colours = np.stack([plane[::2, ::2] for plane in pair], axis=2).reshape(HEIGHT // 2, WIDTH)
    return np.vstack([y, colours])


def with_alpha(rgb: np.ndarray) -> np.ndarray:
    return np.dstack([rgb, np.full(rgb.shape[:2], 7, rgb.dtype)])


WIDE = PICTURE.astype(np.uint16) * 257

CASES = {
    "rgb8": PICTURE, "bgr8": PICTURE[..., ::-1],
    "rgba8": with_alpha(PICTURE), "bgra8": with_alpha(PICTURE[..., ::-1]),
    "rgb16": WIDE, "bgr16": WIDE[..., ::-1],
    "rgba16": with_alpha(WIDE), "bgra16": with_alpha(WIDE[..., ::-1]),
    "mono8": GREY, "8UC1": GREY, "mono16": GREY.astype(np.uint16) * 257,
    "yuv422": yuv422("uyvy"), "uyvy": yuv422("uyvy"),
    "yuv422_yuy2": yuv422("yuyv"), "yuyv": yuv422("yuyv"),
    "nv12": semi_planar("uv"), "nv21": semi_planar("vu"),
    **{f"bayer_{p}8": mosaic(p) for p in ("rggb", "bggr", "gbrg", "grbg")},
    **{f"bayer_{p}16": mosaic(p, np.uint16) for p in ("rggb", "bggr", "gbrg", "grbg")},
}


def message(encoding: str, pixels: np.ndarray, padding=0, big_endian=False, height=HEIGHT) -> Image:
    """As a driver sends it, every row followed by `padding` bytes of rubbish."""
    order = ">" if big_endian else "<"
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(order)))
    rows = rows.view(np.uint8).reshape(len(rows), -1)
    rubbish = np.full((len(rows), padding), 0xA5, np.uint8)
    data = np.hstack([rows, rubbish])
    return Image(height=height, width=WIDTH, encoding=encoding, is_bigendian=int(big_endian),
                 step=data.shape[1], data=array("B", data.tobytes()))


def inner(rgb: np.ndarray) -> np.ndarray:
    """Without the pixels at the borders of the fields, where a mosaic has no right answer."""
    rows = np.r_[3:HEIGHT // 2 - 3, HEIGHT // 2 + 3:HEIGHT - 3]
    columns = np.r_[3:WIDTH // 2 - 3, WIDTH // 2 + 3:WIDTH - 3]
    return rgb[np.ix_(rows, columns)].astype(int)


def test_every_readable_encoding_is_tried_here():
    assert set(CASES) == {*images.ENCODINGS, *images._SAME}


@pytest.mark.parametrize("padding", [0, 6])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", CASES)
def test_a_picture_comes_out_right_padded_or_not_in_either_byte_order(
    encoding, big_endian, padding
):
    rgb = images.to_rgb(message(encoding, CASES[encoding], padding, big_endian))
    assert rgb.dtype == np.uint8 and rgb.shape == (HEIGHT, WIDTH, 3)
    grey = encoding.startswith("mono") or encoding == "8UC1"
    expected = GREY_RGB if grey else PICTURE
    if encoding.startswith(("bayer", "yuv", "uyvy", "yuyv", "nv")):
        assert np.abs(inner(rgb) - inner(expected)).max() <= 3
    else:
        np.testing.assert_array_equal(rgb, expected)


@pytest.mark.parametrize("encoding", CASES)
def test_cv_bridge_and_opencv_give_the_same_picture(encoding):
    image = message(encoding, CASES[encoding], padding=6)
    np.testing.assert_array_equal(to_rgb_with_cv_bridge(image), images.to_rgb(image))


def test_an_odd_padding_of_wide_pixels_is_no_trouble():
    np.testing.assert_array_equal(images.to_rgb(message("rgb16", WIDE, padding=3)), PICTURE)


def test_the_last_row_may_lack_its_padding():
    padded = message("rgb8", PICTURE, padding=6)
    padded.data = padded.data[:-6]
    np.testing.assert_array_equal(images.to_rgb(padded), PICTURE)


def test_pixels_of_an_rgb_message_are_not_copied():
    source = message("rgb8", PICTURE)
    rgb = images.to_rgb(source)
    source.data[0] = 99
    assert rgb[0, 0, 0] == 99


def broken(**changes) -> Image:
    image = message("rgb8", PICTURE)
    for name, value in changes.items():
        setattr(image, name, value)
    return image


@pytest.mark.parametrize("image, words", [
    (broken(encoding="rainbow"), "encoding 'rainbow'"),
    (broken(encoding=""), "encoding ''"),
    (broken(encoding="8UC3"), "encoding '8UC3'"),
    (broken(encoding="16UC1"), "encoding '16UC1'"),
    (broken(encoding="32FC1"), "encoding '32FC1'"),
    (broken(height=HEIGHT + 1), "are needed"),
    (broken(data=array("B")), "has 0 bytes"),
    (broken(step=3 * WIDTH - 1), "rows of 95 bytes"),
    (broken(step=0), "rows of 0 bytes"),
    (broken(height=0), "32 x 0 pixels"),
    (broken(width=0), "0 x 24 pixels"),
    (broken(width=2**32 - 1, height=2**32 - 1, step=2**32 - 1), "allowed are 1 to"),
    (broken(encoding="yuv422", width=31), "must be even"),
    (broken(encoding="nv21", height=23), "must be even"),
])
def test_a_malformed_image_is_refused_with_a_sentence(image, words):
    for refuses in (images.check, images.to_rgb):
        with pytest.raises(ValueError, match=words):
            refuses(image)


def compressed(suffix: str, pixels: np.ndarray, format_: str | None = None, **options):
    _, data = cv2.imencode(f".{suffix}", pixels, *options.values())
    return CompressedImage(format=suffix if format_ is None else format_,
                           data=array("B", data.tobytes()))


@pytest.mark.parametrize("format_", ["jpeg", "", "rgb8; jpeg compressed bgr8",
                                     "bgr8; jpeg compressed bgr8"])
def test_a_jpeg_comes_out_in_the_right_colours(format_):
    rgb = images.to_rgb(compressed("jpg", PICTURE[..., ::-1], format_))
    assert np.abs(inner(rgb) - inner(PICTURE)).max() < 30


def test_what_was_compressed_red_first_is_read_red_first():
    rgb = images.to_rgb(compressed("png", PICTURE, "rgb8; png compressed rgb8"))
    np.testing.assert_array_equal(rgb, PICTURE)


@pytest.mark.parametrize("pixels, expected", [
    (PICTURE[..., ::-1], PICTURE), (with_alpha(PICTURE[..., ::-1]), PICTURE),
    (WIDE[..., ::-1], PICTURE), (GREY, GREY_RGB), (GREY.astype(np.uint16) * 257, GREY_RGB),
])
def test_a_png_comes_out_exactly(pixels, expected):
    np.testing.assert_array_equal(images.to_rgb(compressed("png", pixels)), expected)


def test_a_compressed_mosaic_is_not_taken_for_grey():
    sent = compressed("png", mosaic("grbg"), "bayer_grbg8; png compressed ")
    assert np.abs(inner(images.to_rgb(sent)) - inner(PICTURE)).max() <= 3


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.98])
def test_a_compressed_image_that_was_cut_off_is_refused(suffix, kept):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    image = compressed(suffix, noise)
    image.data = image.data[:int(kept * len(image.data))]
    with pytest.raises(ValueError):
        images.to_rgb(image)


def test_zeros_after_a_jpeg_are_no_trouble():
    image = compressed("jpg", PICTURE[..., ::-1])
    image.data.extend(bytes(1000))
    assert images.to_rgb(image).shape == PICTURE.shape


def test_rubbish_is_refused():
    with pytest.raises(ValueError, match="cannot be read"):
        images.to_rgb(CompressedImage(format="jpeg", data=array("B", b"not a picture at all")))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 200), st.binary(max_size=3000),
       st.sampled_from([*CASES, "8UC3", "", "?"]), st.booleans())
def test_whatever_a_message_says_it_is_read_or_refused_with_a_sentence(
    height, width, step, data, encoding, big_endian
):
    image = Image(height=height, width=width, step=step, encoding=encoding,
                  is_bigendian=int(big_endian), data=array("B", data))
    try:
        rgb = images.to_rgb(image)
    except ValueError as error:
        assert str(error).endswith(".")
    else:
        assert rgb.shape == (height, width, 3) and rgb.dtype == np.uint8


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_compressed_images_are_read_or_refused(data):
    suffix = data.draw(st.sampled_from(["jpg", "png"]))
    image = compressed(suffix, PICTURE)
    for _ in range(data.draw(st.integers(0, 8))):
        image.data[data.draw(st.integers(0, len(image.data) - 1))] = data.draw(st.integers(0, 255))
    try:
        rgb = images.to_rgb(image)
    except ValueError:
        return
    assert rgb.ndim == 3 and rgb.shape[2] == 3 and rgb.dtype == np.uint8
