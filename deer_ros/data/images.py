"""Image messages as RGB arrays, whatever their encoding, row padding and byte order.

A message is anything with the fields of sensor_msgs/Image or, where it has a `format`, of
sensor_msgs/CompressedImage: the node's messages and those of a bag alike. numpy takes padding and
byte order away, OpenCV reduces to 8 bits and RGB.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

# Larger pictures are taken for broken messages. OpenCV reads its own limit when it is loaded.
MAX_PIXELS = 1 << 26
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))

import cv2  # noqa: E402


@dataclass(frozen=True)
class Encoding:
    """How pixels lie in memory. rows_per_height: 1.5 where colour planes follow the picture.

    decoder: OpenCV's code that makes RGB of it; None where only channels change their places.
    """

    channels: int
    dtype: str = "u1"
    decoder: int | None = None
    rows_per_height: float = 1.0
    even_width: bool = False


# OpenCV names a Bayer pattern by its second row's second and third pixel.
_BAYER = {
    "rggb": cv2.COLOR_BayerBG2RGB,
    "bggr": cv2.COLOR_BayerRG2RGB,
    "gbrg": cv2.COLOR_BayerGR2RGB,
    "grbg": cv2.COLOR_BayerGB2RGB,
}
_UYVY = Encoding(2, decoder=cv2.COLOR_YUV2RGB_UYVY, even_width=True)
_YUYV = Encoding(2, decoder=cv2.COLOR_YUV2RGB_YUY2, even_width=True)
_CHANNELS = {"mono": 1, "rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4}

ENCODINGS: dict[str, Encoding] = {
    **{f"{name}8": Encoding(channels) for name, channels in _CHANNELS.items()},
    **{f"{name}16": Encoding(channels, "u2") for name, channels in _CHANNELS.items()},
    **{f"bayer_{name}8": Encoding(1, "u1", code) for name, code in _BAYER.items()},
    **{f"bayer_{name}16": Encoding(1, "u2", code) for name, code in _BAYER.items()},
    "yuv422": _UYVY,
    "uyvy": _UYVY,
    "yuv422_yuy2": _YUYV,
    "yuyv": _YUYV,
    "nv12": Encoding(1, decoder=cv2.COLOR_YUV2RGB_NV12, rows_per_height=1.5, even_width=True),
    "nv21": Encoding(1, decoder=cv2.COLOR_YUV2RGB_NV21, rows_per_height=1.5, even_width=True),
}
# One channel of 8 bits can only be grey; of 16 bits it mostly is depth, and three have no order.
_SAME = {"8UC1": "mono8"}

_CHANNEL_CODES = {
    "mono8": cv2.COLOR_GRAY2RGB,
    "bgr8": cv2.COLOR_BGR2RGB,
    "rgba8": cv2.COLOR_RGBA2RGB,
    "bgra8": cv2.COLOR_BGRA2RGB,
}


def in_rgb_order(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """uint8 pixels in mono8, bgr8, rgba8 or bgra8 as uint8 RGB (height, width, 3)."""
    return cv2.cvtColor(pixels, _CHANNEL_CODES[encoding])


def to_rgb(
    message: Any, in_order: Callable[[np.ndarray, str], np.ndarray] = in_rgb_order
) -> np.ndarray:
    """The picture as uint8 RGB (height, width, 3). Raises ValueError with a sentence.

    in_order: brings the channels into order, as `in_rgb_order` does.
    """
    check(message)
    try:
        return _to_rgb(message, in_order)
    except cv2.error as error:
        raise ValueError(f"OpenCV cannot read a picture: {error.err}.") from error


def decode(data: bytes) -> np.ndarray:
    """The picture in a JPEG or PNG file's bytes, as `to_rgb`."""
    return to_rgb(_File(data))


@dataclass(frozen=True)
class _File:
    data: bytes
    format: str = ""


def is_compressed(message: Any) -> bool:
    """Whether it is a CompressedImage."""
    return hasattr(message, "format")


def _to_rgb(message: Any, in_order: Callable[[np.ndarray, str], np.ndarray]) -> np.ndarray:
    if is_compressed(message):
        pixels, name = _decompressed(message)
    else:
        pixels, name = _pixels(message), _SAME.get(message.encoding, message.encoding)
    encoding = ENCODINGS[name]
    if encoding.decoder is not None:
        pixels, name = cv2.cvtColor(pixels, encoding.decoder), "rgb8"
    if pixels.dtype != np.uint8:
        pixels, name = cv2.convertScaleAbs(pixels, alpha=255 / 65535), name.replace("16", "8")
    if name == "rgb8":
        return pixels
    return in_order(np.ascontiguousarray(pixels), name)


def check(message: Any) -> None:
    """What can be told of a message without touching its pixels. Raises ValueError."""
    if is_compressed(message):
        if len(message.data) == 0:
            raise ValueError("a compressed picture is empty.")
        return
    name = _SAME.get(message.encoding, message.encoding)
    encoding = ENCODINGS.get(name)
    if encoding is None:
        raise ValueError(
            f"a picture has the encoding {message.encoding!r}; readable are "
            f"{', '.join([*ENCODINGS, *_SAME])}."
        )
    height, width, step = message.height, message.width, message.step
    if not (height > 0 and width > 0 and height * width <= MAX_PIXELS):
        raise ValueError(
            f"a picture has {width} x {height} pixels; allowed are 1 to {MAX_PIXELS} in all."
        )
    planar = encoding.rows_per_height != 1
    if (encoding.even_width and width % 2) or (planar and height % 2):
        raise ValueError(
            f"a picture in {name} has {width} x {height} pixels; its colours are shared by pairs "
            "of pixels, so the size must be even."
        )
    row = width * encoding.channels * np.dtype(encoding.dtype).itemsize
    if step < row:
        raise ValueError(
            f"a picture in {name} has rows of {step} bytes; {width} pixels take {row}.")
    needed = step * (_rows(encoding, height) - 1) + row
    if len(message.data) < needed:
        raise ValueError(
            f"a picture in {name} of {width} x {height} pixels has {len(message.data)} bytes; "
            f"{needed} are needed."
        )


def _rows(encoding: Encoding, height: int) -> int:
    return round(height * encoding.rows_per_height)


def _pixels(message: Any) -> np.ndarray:
    """A view of the message without padding, (rows, width[, channels]), in this machine's order."""
    encoding = ENCODINGS[_SAME.get(message.encoding, message.encoding)]
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    shape = (_rows(encoding, message.height), message.width, encoding.channels)
    pixel = dtype.itemsize * encoding.channels
    pixels = np.ndarray(shape, dtype, np.frombuffer(message.data, np.uint8),
                        strides=(message.step, pixel, dtype.itemsize))
    if encoding.channels == 1:
        pixels = pixels[:, :, 0]
    return np.ascontiguousarray(pixels.astype(dtype.newbyteorder("="), copy=False))


def _decompressed(message: Any) -> tuple[np.ndarray, str]:
    """Pixels and the name of their encoding. What image_transport says in `format` is obeyed."""
    data = np.frombuffer(message.data, np.uint8)
    _check_whole(data.tobytes())
    pixels = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"a compressed picture of {len(data)} bytes, format {message.format!r}, cannot be read "
            "as an image of 8 or 16 bits."
        )
    bits = 8 * pixels.dtype.itemsize
    source, _, compressed = message.format.partition(";")
    if pixels.ndim == 2:
        mosaic = source.strip()
        return pixels, mosaic if mosaic in (f"bayer_{p}{bits}" for p in _BAYER) else f"mono{bits}"
    # OpenCV gives blue first, unless whoever compressed gave it red first.
    order = "rgb" if "compressed rgb" in compressed else "bgr"
    return pixels, f"{order}{'a' if pixels.shape[2] == 4 else ''}{bits}"


def _check_whole(data: bytes) -> None:
    """OpenCV makes a picture, half of it grey, of a JPEG that was cut off."""
    # Cameras that compress themselves may fill up their buffers.
    tail = data.rstrip(b"\0")[-64:]
    if data.startswith(b"\xff\xd8") and b"\xff\xd9" not in tail:
        raise ValueError("a JPEG picture is cut off: its end is missing.")
    if data.startswith(b"\x89PNG") and b"IEND" not in tail:
        raise ValueError("a PNG picture is cut off: its end is missing.")
