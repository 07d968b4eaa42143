"""Pictures of the node's messages, read with the help of cv_bridge.

cv_bridge turns the channels into the right order. Two of its versions are about, and the one from
PyPI takes padded rows for pixels and knows neither 16 bits, YUV nor every Bayer pattern. So
`data.images` does all else, and cv_bridge gets what both versions are right about.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from cv_bridge import CvBridge
from sensor_msgs.msg import CompressedImage, Image

from deer_ros.data import images

_BRIDGE = CvBridge()


@dataclass
class _Plain:
    """What cv_bridge reads of an Image message; data may be an array, and is not copied."""

    height: int
    width: int
    encoding: str
    step: int
    data: np.ndarray
    is_bigendian: int = int(sys.byteorder == "big")


def to_rgb(message: Image | CompressedImage) -> np.ndarray:
    """The picture as uint8 RGB (height, width, 3). Raises ValueError with a sentence."""
    return images.to_rgb(message, _in_order)


def _in_order(pixels: np.ndarray, encoding: str) -> np.ndarray:
    height, width = pixels.shape[:2]
    plain = _Plain(height, width, encoding, pixels.strides[0], pixels)
    return _BRIDGE.imgmsg_to_cv2(plain, "rgb8")
