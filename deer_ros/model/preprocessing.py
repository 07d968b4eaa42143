"""Camera pictures to the tower's input, exactly as the original does it.

Shorter side to the model's size with PIL's bicubic filter (antialiased), aspect kept, centre crop,
scale to 0..1, normalise. Image processors that resize otherwise give other pixels: not used here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
PIL_BICUBIC = 3
# A picture is resized before its middle is cut out: memory grows with the ratio of its sides.
MOST_RATIO = 32


@dataclass(frozen=True)
class Preprocessor:
    """`size` is the side in pixels of the square picture that the tower sees."""

    size: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of any size -> (3, size, size) float32."""
        return self.normalise(self.resize(picture))

    def resize(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB of any size -> (size, size, 3) uint8."""
        check_picture(picture)
        height, width = picture.shape[:2]
        if (height, width) == (self.size, self.size):
            return picture
        shorter = min(height, width)
        new_width, new_height = (self.size * side // shorter for side in (width, height))
        resized = Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BICUBIC)
        left, top = round((new_width - self.size) / 2), round((new_height - self.size) / 2)
        return np.asarray(resized.crop((left, top, left + self.size, top + self.size)))

    def normalise(self, picture: np.ndarray) -> np.ndarray:
        """(..., size, size, 3) uint8 -> (..., 3, size, size) float32."""
        mean, std = (np.array(x, np.float32) for x in (self.mean, self.std))
        scaled = (picture.astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(np.moveaxis(scaled, -1, -3))

    def save(self, path: str | Path) -> None:
        """Write `preprocessor_config.json`."""
        values = {
            "do_resize": True,
            "size": {"shortest_edge": self.size},
            "resample": PIL_BICUBIC,
            "do_center_crop": True,
            "crop_size": {"height": self.size, "width": self.size},
            "image_mean": list(self.mean),
            "image_std": list(self.std),
        }
        Path(path).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Preprocessor:
        """Read `preprocessor_config.json`. Raises ValueError naming the file."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            size = values["size"]["shortest_edge"]
            mean, std = (np.array(values[k], np.float64) for k in ("image_mean", "image_std"))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(
                f"{path} cannot be read as a preprocessor configuration ({error!r}); it needs "
                "size.shortest_edge, image_mean and image_std."
            ) from error
        finite = np.isfinite(mean).all() and np.isfinite(std).all()
        if not (mean.shape == std.shape == (3,) and finite and (std > 0).all()):
            raise ValueError(
                f"{path} asks for mean {mean.tolist()} and std {std.tolist()}; allowed are three "
                "finite numbers each, std above zero."
            )
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"{path} asks for pictures of {size!r} pixels; it must be a whole number from 1."
            )
        return cls(size, tuple(mean.tolist()), tuple(std.tolist()))


def check_picture(picture: np.ndarray) -> None:
    """Raise ValueError unless `picture` is a non-empty (H, W, 3) uint8 array, and no mere stripe.
    """
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8:
        kind = getattr(picture, "dtype", type(picture).__name__)
        raise ValueError(f"a picture is of type {kind}; it must be a uint8 numpy array.")
    if picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
        raise ValueError(f"a picture has shape {picture.shape}; it must be (height, width, 3).")
    height, width = picture.shape[:2]
    if max(height, width) > MOST_RATIO * min(height, width):
        raise ValueError(
            f"a picture has {height} x {width} pixels; its longer side must be at most "
            f"{MOST_RATIO} times its shorter."
        )
