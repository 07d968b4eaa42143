"""Compressed pictures: RGB arrays to JPEG. `images` reads them."""

from __future__ import annotations

import cv2
import numpy as np

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
