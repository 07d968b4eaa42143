"""Compressed pictures: RGB arrays to JPEG and back."""

from __future__ import annotations

import cv2
import numpy as np

_START, _END = b"\xff\xd8", b"\xff\xd9"
# Colour at full resolution: a goal of a few pixels would lose its colour to its surroundings.
# The OpenCV of older ROS releases cannot do this.
_SAMPLING = (
    (cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    if hasattr(cv2, "IMWRITE_JPEG_SAMPLING_FACTOR")
    else ()
)


def encode_jpeg(picture: np.ndarray, quality: int = 90) -> bytes:
    """JPEG of a picture, uint8 (height, width, 3) RGB.

    Raises:
        ValueError: the array is no such picture.
    """
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(
            "a picture must be uint8 of shape (height, width, 3); "
            f"this one is {picture.dtype} of shape {picture.shape}"
        )
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality, *_SAMPLING))
    if not done:
        raise ValueError(f"a picture of shape {picture.shape} could not be encoded as JPEG")
    return data.tobytes()


def decode_picture(data: bytes | np.ndarray) -> np.ndarray:
    """The picture, uint8 (height, width, 3) RGB, in a JPEG or PNG file's bytes.

    Grey pictures come out with three equal channels.

    Raises:
        ValueError: the bytes are no picture, or a JPEG that was cut short.
    """
    array = np.frombuffer(data, dtype=np.uint8)
    head, tail = array[:2].tobytes(), array[-1024:].tobytes().rstrip(b"\0")[-2:]
    # The decoder fills what is missing with grey and says nothing.
    if head == _START and tail != _END:
        raise ValueError(f"a JPEG of {array.size} bytes is cut short: it has no end marker")
    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    bgr = cv2.imdecode(array, flags) if array.size else None
    if bgr is None:
        raise ValueError(f"{array.size} bytes are no picture that can be decoded")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
