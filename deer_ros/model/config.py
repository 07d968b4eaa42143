"""One dataclass says the whole network, what its actions mean and when it may stop.

`DeerConfig` is what `config.json` of a model directory holds. Every size comes from it, so that a
model of a few million parameters and the published ones of 3 and 9 billion are the same classes.
Nothing here needs torch.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deer_ros.model.schema import from_dict, to_dict
from deer_ros.model.sizes import HeadConfig, LanguageConfig, ResamplerConfig, VisionConfig

LEARNED = "learned"
"""The metric that compares no two answers: the head's guess of what is lost against full depth."""
COMPARING = ("l2", "mean", "max", "cosine")
"""The metrics that compare the poses of two successive exits."""
METRICS = (*COMPARING, LEARNED)
TRAINED_IN = ("simulation", "robot")
CAMERAS = 2
# A robot that moves for longer on one look is out of control.
MOST_EXECUTIONS = 1000
# Beyond, the steps of an episode fill the memory, or the nanoseconds of one are no number any more.
SLOWEST_HZ, FASTEST_HZ = 0.001, 1000.0
MOST_STEPS = 10**9


@dataclass(frozen=True)
class ExitConfig:
    """Where the model may stop, and its default rule for doing so.

    `thresholds` has one number per exit, `None` where the model brings none: then it runs to
    full depth unless its user sets thresholds. The criterion is asked every `steps_per_decision`
    steps; those in between keep the exit, but go no deeper than `max_layer_between`, if there is
    one.
    """

    interval: int = 2
    metric: str = "l2"
    thresholds: tuple[float, ...] | None = None
    steps_per_decision: int = 1
    max_layer_between: int | None = None

    def __post_init__(self) -> None:
        for name in ("steps_per_decision", "max_layer_between"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= MOST_STEPS:
                raise ValueError(f"exits.{name} is {value}; it must be 1 to {MOST_STEPS}.")
        if self.interval < 1:
            raise ValueError(f"exits.interval is {self.interval}; it must be at least 1.")
        if self.metric not in METRICS:
            raise ValueError(
                f"exits.metric is {self.metric!r}; allowed are {', '.join(METRICS)}."
            )


@dataclass(frozen=True)
class PromptConfig:
    """Ids of the special tokens, and the longest prompt in tokens."""

    image_token: int = 50278
    end_of_chunk_token: int = 50277
    end_of_text_token: int = 0
    padding_token: int = 50279
    max_tokens: int = 32

    def __post_init__(self) -> None:
        if self.max_tokens < 4:
            raise ValueError(
                f"prompt.max_tokens is {self.max_tokens}; it must be at least 4, as three tokens "
                "are the model's own."
            )

    @property
    def special_tokens(self) -> tuple[int, int, int, int]:
        """Ids of `<image>`, end of chunk, end of text and padding."""
        return (
            self.image_token, self.end_of_chunk_token, self.end_of_text_token, self.padding_token
        )

    @property
    def usual_tokens(self) -> int:
        """Length of a prompt where there is none yet: as the paper's, if that is not too long."""
        return min(13, self.max_tokens)


@dataclass(frozen=True)
class ActionConfig:
    """What an action means on a robot.

    The six values times `linear_scale` (m) and `angular_scale` (rad) are the displacement of one
    control period; times `rate_hz` they are a velocity. The action of a step is carried out
    `executions_per_step` times in a row, a control period each, and then comes the next step.
    """

    rate_hz: float = 30.0
    frame: str = "world"
    rotation: str = "euler_xyz_increment"
    reference: str = "target"
    linear_scale: float = 0.02
    angular_scale: float = 0.05
    executions_per_step: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.executions_per_step <= MOST_EXECUTIONS:
            raise ValueError(
                f"action.executions_per_step is {self.executions_per_step}; it must be 1 to "
                f"{MOST_EXECUTIONS}."
            )
        for name, allowed in (
            ("frame", ("world", "tool")),
            ("rotation", ("euler_xyz_increment", "rotation_vector")),
            ("reference", ("target", "measured")),
        ):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"action.{name} is {getattr(self, name)!r}; allowed are "
                    f"{' and '.join(allowed)}."
                )
        if not SLOWEST_HZ <= self.rate_hz <= FASTEST_HZ:
            raise ValueError(
                f"action.rate_hz is {self.rate_hz}; it must be {SLOWEST_HZ:g} to {FASTEST_HZ:g}."
            )
        for name in ("linear_scale", "angular_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"action.{name} is {value}; it must be a finite positive number.")


@dataclass(frozen=True)
class ProprioceptionConfig:
    """What a model reads of the robot's own state, besides pictures.

    layout: names of the values in the order of `Observation.proprioception`: `end_effector.x`, `y`,
    `z` (m), `qx`, `qy`, `qz`, `qw`, and `joint.NAME` (rad, m), as bags and nodes call them; other
    sources of data may have others. mean, std: what is taken off each, and what it is divided by;
    training fills them in from its data where they are null.
    """

    layout: tuple[str, ...] = ()
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.layout or len(set(self.layout)) < len(self.layout):
            raise ValueError(
                f"proprioception.layout is {list(self.layout)}; it must have a name at least, and "
                "none twice."
            )
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != self.size:
                raise ValueError(
                    f"proprioception.{name} has {len(values)} numbers; the layout has {self.size} "
                    "names."
                )
            if values is not None and not all(math.isfinite(value) for value in values):
                raise ValueError(f"proprioception.{name} is {list(values)}; it must be finite.")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(
                f"proprioception.std is {list(self.std)}; every number must be above zero."
            )

    @property
    def size(self) -> int:
        """Number of values."""
        return len(self.layout)


@dataclass(frozen=True)
class DeerConfig:
    """All that `config.json` of a model directory says.

    `max_episode_steps` is how long an episode lasts at most, in control periods. `proprioception`
    is None where the model sees pictures alone.
    """

    vision: VisionConfig = field(default_factory=VisionConfig)
    resampler: ResamplerConfig = field(default_factory=ResamplerConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    exits: ExitConfig = field(default_factory=ExitConfig)
    prompt: PromptConfig = field(default_factory=PromptConfig)
    action: ActionConfig = field(default_factory=ActionConfig)
    trained_in: str = "simulation"
    max_episode_steps: int = 360
    proprioception: ProprioceptionConfig | None = None
    model_type: str = "deer"

    def __post_init__(self) -> None:
        if self.trained_in not in TRAINED_IN:
            raise ValueError(
                f"trained_in is {self.trained_in!r}; allowed are {' and '.join(TRAINED_IN)}."
            )
        if self.model_type != "deer":
            raise ValueError(f"model_type is {self.model_type!r}; this package runs 'deer' models.")
        if not 1 <= self.max_episode_steps <= MOST_STEPS:
            raise ValueError(
                f"max_episode_steps is {self.max_episode_steps}; it must be 1 to {MOST_STEPS}."
            )
        self.check_metric(self.exits.metric)
        between = self.exits.max_layer_between
        if between is not None and between < self.exit_layers[0]:
            raise ValueError(
                f"exits.max_layer_between is {between}; the first exit is after layer "
                f"{self.exit_layers[0]}, so it must be at least that, or null for no limit."
            )
        thresholds = self.exits.thresholds
        if thresholds is not None and len(thresholds) != len(self.exit_layers):
            raise ValueError(
                f"exits.thresholds has {len(thresholds)} numbers; the model has "
                f"{len(self.exit_layers)} exits, at layers {list(self.exit_layers)}."
            )

    @property
    def latents(self) -> int:
        """Latents that the language model reads: those of both pictures, and the robot's own."""
        return CAMERAS * self.resampler.latents + (self.proprioception is not None)

    @property
    def exit_layers(self) -> tuple[int, ...]:
        """Layers, counted from 1, after which the head may answer; the deepest is the last."""
        last = self.language.layers
        return (*range(self.exits.interval, last, self.exits.interval), last)

    @property
    def metric(self) -> str:
        """Default metric of the criterion."""
        return self.exits.metric

    def check_metric(self, metric: str) -> None:
        """ValueError where this model has no gate for the metric `learned`."""
        if metric == LEARNED and self.head.gate_width is None:
            raise ValueError(
                f"the metric {LEARNED} needs a model whose head has a gate (head.gate_width in its "
                f"config.json); this one has none. Use {', '.join(COMPARING)}."
            )

    def reference_layer(self, metric: str) -> int | None:
        """The layer whose answer the first exit is compared with under `metric`; None where there
        is none: before an exit after layer 1, and where nothing is compared."""
        first = self.exit_layers[0]
        return None if metric == LEARNED or first == 1 else first - 1

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Default threshold of every exit; infinite at the last, which is always taken."""
        given = self.exits.thresholds
        if given is None:
            return (-math.inf,) * (len(self.exit_layers) - 1) + (math.inf,)
        return (*given[:-1], math.inf)

    def permitted_exits(self, max_layer: int | None) -> tuple[int, ...]:
        """Exit layers up to `max_layer`, rounded down to an exit. None permits all.

        Raises ValueError where not even the first exit is permitted.
        """
        if max_layer is None:
            return self.exit_layers
        permitted = tuple(layer for layer in self.exit_layers if layer <= max_layer)
        if not permitted:
            raise ValueError(
                f"max_layer is {max_layer}; the first exit of this model is after layer "
                f"{self.exit_layers[0]}, so it must be at least that (0 in the node: all layers)."
            )
        return permitted

    def save(self, path: str | Path) -> None:
        """Write `config.json` to `path`."""
        Path(path).write_text(json.dumps(to_dict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> DeerConfig:
        """Read `config.json`. Raises ValueError naming the file and the key that is wrong."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from error

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DeerConfig:
        """Build from nested dictionaries. Unknown keys and wrong types are a ValueError."""
        return from_dict(cls, values)

    def replace(self, **changes: Any) -> DeerConfig:
        """A copy with some parts exchanged."""
        return dataclasses.replace(self, **changes)
