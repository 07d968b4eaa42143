"""What the robot knows of itself, as one more latent that the language model reads.

The original can read it but was published without; this is not its way. The pictures' latents stay
what they are, so that they may be computed once, and every exit sees it.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from deer_ros.model.config import ProprioceptionConfig


class ProprioceptionEncoder(nn.Module):
    """Normalised values (N, P) -> a latent (N, 1, width) beside those of the pictures."""

    def __init__(self, config: ProprioceptionConfig, width: int) -> None:
        super().__init__()
        if config.mean is None or config.std is None:
            raise ValueError(
                "proprioception.mean and proprioception.std are not given; a model needs both, and "
                "`deer train` finds them in its data."
            )
        self.layers = nn.Sequential(
            nn.Linear(config.size, width), nn.SiLU(), nn.Linear(width, width), nn.LayerNorm(width)
        )

    def forward(self, values: Tensor) -> Tensor:
        return self.layers(values).unsqueeze(-2)


def normalised(config: ProprioceptionConfig, values: np.ndarray | None) -> np.ndarray:
    """What an observation holds, P numbers in the layout's order -> float32 (P,).

    Raises ValueError where they are missing, of another number, or not finite.
    """
    if values is None:
        raise ValueError(
            f"this model reads proprioception ({', '.join(config.layout)}); the observation has "
            "none."
        )
    values = np.asarray(values)
    if values.shape != (config.size,) or values.dtype.kind not in "fiu":
        raise ValueError(
            f"proprioception is {values.dtype} of shape {values.shape}; this model takes "
            f"{config.size} numbers: {', '.join(config.layout)}."
        )
    broken = ~np.isfinite(values)
    if broken.any():
        raise ValueError(
            f"proprioception has a value of {config.layout[int(broken.argmax())]} that is not "
            "finite."
        )
    return scaled(config, values)


def scaled(config: ProprioceptionConfig, values: np.ndarray) -> np.ndarray:
    """(..., P) -> float32 (..., P), (value - mean) / std."""
    mean, std = (np.array(x, np.float32) for x in (config.mean, config.std))
    return ((values.astype(np.float32) - mean) / std).astype(np.float32)
