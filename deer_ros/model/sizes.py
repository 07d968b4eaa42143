"""The parts of the network and their sizes, as a model's `config.json` says them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

GROUPS = 8  # of the group norms in a `conv` tower
# Far beyond any model, and small enough that no product of them overflows or builds for ever.
MOST_LAYERS = 1000
MOST_TIMES = 1000
MOST_WIDE = 1 << 16
MOST_WORDS = 1 << 24
DISTANCE, SUCCESS = "distance", "success"
GATE_OUTPUTS = {DISTANCE: 1, SUCCESS: 2}
"""What a gate may guess a loss of, and the numbers that such a gate computes."""


@dataclass(frozen=True)
class VisionConfig:
    """The tower that turns one picture into tokens of `width` values.

    `clip` is the vision transformer of CLIP (patch tokens after the last block, without its
    final norm); `conv` is a small convolutional one, one stack of layers per camera.
    """

    type: str = "clip"
    image_size: int = 224
    width: int = 1024
    patch_size: int = 14
    layers: int = 24
    heads: int = 16
    mlp_ratio: float = 4.0
    channels: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _check_positive("vision", self)
        if self.type == "conv":
            self._check_conv()
        elif self.type == "clip":
            _check_multiple("vision", self, "image_size", "patch_size")
            _check_multiple("vision", self, "width", "heads")
        else:
            raise ValueError(f"vision.type is {self.type!r}; allowed are 'clip' and 'conv'.")

    def _check_conv(self) -> None:
        if not self.channels or len(self.channels) != len(self.strides):
            raise ValueError(
                "vision.channels and vision.strides of a 'conv' tower need one number per layer "
                f"each; they have {len(self.channels)} and {len(self.strides)}."
            )
        if any(channels % GROUPS for channels in self.channels):
            raise ValueError(
                f"vision.channels is {list(self.channels)}; each must be a multiple of {GROUPS}."
            )
        if self.channels[-1] != self.width:
            raise ValueError(
                f"vision.channels ends with {self.channels[-1]}, but vision.width is "
                f"{self.width}; they must be equal."
            )

    @property
    def tokens(self) -> int:
        """Tokens that the tower makes of one picture."""
        if self.type == "clip":
            return (self.image_size // self.patch_size) ** 2
        side = self.image_size
        for stride in self.strides:
            side = math.ceil(side / stride)
        return side * side


@dataclass(frozen=True)
class ResamplerConfig:
    """The perceiver resampler: `latents` learned queries that read the tokens of one picture."""

    depth: int = 6
    latents: int = 64
    heads: int = 8
    head_dim: int = 64
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        _check_positive("resampler", self)


@dataclass(frozen=True)
class LanguageConfig:
    """The decoder: blocks with ALiBi, some preceded by gated cross-attention to the pictures."""

    width: int = 2048
    layers: int = 12
    heads: int = 16
    mlp_ratio: int = 4
    vocabulary: int = 50280
    qk_layer_norm: bool = True
    alibi_bias_max: float = 8.0
    layer_norm_eps: float = 1e-5
    cross_attention_every: int = 1
    cross_attention_heads: int = 8
    cross_attention_head_dim: int = 64
    cross_attention_mlp_ratio: int = 4

    def __post_init__(self) -> None:
        _check_positive("language", self)
        _check_multiple("language", self, "width", "heads")

    def has_cross_attention(self, layer: int) -> bool:
        """Whether `layer`, counted from 1, is preceded by gated cross-attention."""
        return layer % self.cross_attention_every == 0


@dataclass(frozen=True)
class HeadConfig:
    """The action head: maximum over the tokens, a stack of LSTM layers, two small MLPs.

    `layer_projections`: what is heard after a layer passes a linear one that is this exit's own,
    so that the layers need not agree on how to speak to a head that they share (as translators of
    a tuned lens, Belrose et al. 2023); none in the published models.
    `gate_width` is the hidden width of a third MLP, which guesses what taking an exit loses against
    full depth, `None` where there is none, as in the published models. `gate_guesses` says what is
    lost: the exactness of the pose (`distance`) or the chance of `success`.
    """

    lstm_width: int = 1024
    lstm_layers: int = 4
    lstm_layer_norm: bool = True
    mlp_widths: tuple[int, ...] = (1024, 512)
    mlp_layer_norm: bool = True
    layer_projections: bool = False
    lstm_dropout: float = 0.3
    mlp_dropout: float = 0.4
    gate_width: int | None = None
    gate_guesses: str = DISTANCE
    gate_dropout: float = 0.0

    def __post_init__(self) -> None:
        _check_positive("head", self)
        if self.gate_guesses not in GATE_OUTPUTS:
            raise ValueError(
                f"head.gate_guesses is {self.gate_guesses!r}; allowed are "
                f"{' and '.join(GATE_OUTPUTS)}."
            )
        for name in ("lstm_dropout", "mlp_dropout", "gate_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(
                    f"head.{name} is {getattr(self, name)}; it must be at least 0 and below 1."
                )

    @property
    def guesses_success(self) -> bool:
        """Whether there is a gate that does."""
        return self.gate_width is not None and self.gate_guesses == SUCCESS

    @property
    def gate_outputs(self) -> int:
        """Numbers that the gate computes from its hidden layer."""
        return GATE_OUTPUTS[self.gate_guesses]


def _check_positive(part: str, config: Any) -> None:
    """Every number of a part, but for its dropouts, is a size or a scale: above zero, and no larger
    than it can be."""
    for name, value in vars(config).items():
        if isinstance(value, tuple) and len(value) > MOST_LAYERS:
            raise ValueError(
                f"{part}.{name} has {len(value)} numbers; it may have {MOST_LAYERS} at most."
            )
        for number in value if isinstance(value, tuple) else (value,):
            counts = isinstance(number, (int, float)) and not isinstance(number, bool)
            if counts and not name.endswith("dropout") and not 0 < number <= _most(name):
                raise ValueError(
                    f"{part}.{name} is {value}; it must be above zero and at most {_most(name)}."
                )


def _most(name: str) -> int:
    """The largest number of that name."""
    if name.endswith("layers") or name == "depth":
        return MOST_LAYERS
    if name.endswith("mlp_ratio"):
        return MOST_TIMES
    return MOST_WORDS if name == "vocabulary" else MOST_WIDE


def _check_multiple(part: str, config: Any, large: str, small: str) -> None:
    if getattr(config, large) % getattr(config, small):
        raise ValueError(
            f"{part}.{large} {getattr(config, large)} is not a multiple of {part}.{small} "
            f"{getattr(config, small)}."
        )
