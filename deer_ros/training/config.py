"""What `deer train` is told: one YAML file, checked like a model's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from deer_ros.model.config import TRAINED_IN, DeerConfig
from deer_ros.model.schema import from_dict
from deer_ros.training.limits import check_numbers

PARTS = ("tower", "resampler", "embedding", "cross_attention", "blocks")
"""Parts of a model besides its heads, which are always trained."""
VISION = ("tower", "resampler")
TRAINED_FROM_NOTHING = ("embedding", "cross_attention", "blocks")
TRAINED_TO_SEE = ("cross_attention",)
"""What learns where layers know words: they would forget them, few of which are demonstrated."""
FINE_TUNED = ("resampler", "embedding", "cross_attention")
"""What the original trains of a model that knows something already."""
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class VisionPhase:
    """Tower and resampler learn to tell the simulator's state from the pictures.

    It stands in for a pretrained tower; `steps: 0` leaves it out. `shift_px`: pictures are moved by
    up to so many pixels. start_from: a model directory whose tower and resampler are taken as they
    are instead; the other keys mean nothing then.
    """

    steps: int = 2000
    batch_frames: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    shift_px: int = 0
    start_from: str | None = None

    def __post_init__(self) -> None:
        check_numbers(self, "vision.")

    @property
    def learns(self) -> bool:
        """Whether this phase has steps to make."""
        return self.steps > 0 and self.start_from is None


@dataclass(frozen=True)
class LanguagePhase:
    """Embedding and decoder blocks learn to tell from an instruction alone what it means.

    It stands in for a pretrained language model; `steps: 0` leaves it out.
    tasks: of the simulator, whose instructions are learned here, and are `policy.paraphrases`;
    empty, those that demonstrations are collected of.
    batch_sentences: of all processes together. precision: as in the policy phase.
    """

    steps: int = 0
    tasks: tuple[str, ...] = ()
    batch_sentences: int = 192
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    precision: str = "float32"

    def __post_init__(self) -> None:
        check_numbers(self, "language.")
        _check_precision("language", self.precision)


@dataclass(frozen=True)
class PolicyPhase:
    """Layers and heads learn the expert's actions on windows of an episode.

    steps: joint phase. head_steps: after it, the heads alone, on frozen layers. window: steps of a
    window. batch_windows: of all processes together.
    gripper_weight: of the gripper's loss beside the pose's. auxiliary_weight: of the losses of the
    auxiliary heads, one at every exit; 0 trains without them. constant_exit_weight: of the shared
    head's loss along every exit taken constantly, and decided for constantly where the model's
    cadence is not every step, beside the two random samplings (0: as in the original).
    episodes_alike: every episode is drawn equally often, whatever its length; else every window, as
    in the original.
    meaning_weight: of a loss that asks every exit, as in the language phase, what was meant, so
    that layers do not forget it as they learn to act; 0: they keep still instead.
    gates: what the gates of cross-attention begin at, whose tanh scales what is seen; 0 is closed.
    null: 0 where layers know words that nothing asks for (a language phase, no `meaning_weight`),
    else 1. A model that is started from brings its own.
    paraphrases: a window is told any instruction of the meaning of its own, of `language.tasks`.
    decay_gated_only: weight decay on gated cross-attention alone, as in the original.
    cosine: learning rate falls to a twentieth over each of these phases; else it stays.
    adam_beta2: of AdamW, how slowly the mean of squared gradients forgets (the original: 0.999).
    trained: parts of the model that learn in the joint phase, of `PARTS`; null: the decoder
    (`TRAINED_FROM_NOTHING`), or its cross-attention alone (`TRAINED_TO_SEE`) after a language
    phase, and without a vision phase `VISION` too; or as in the original (`FINE_TUNED`) with
    `start_from`.
    shift_px: the static and the gripper camera's pictures are moved by up to so many pixels, each
    by itself. While neither the tower nor the resampler learns and nothing moves, every picture is
    encoded once; else again in every step.
    precision: of what is computed, `float32` or `bfloat16`; the weights stay float32, and so do
    validation losses. Faster where the processor has bfloat16.
    pad_short_episodes: an episode shorter than a window is trained on as far as it goes; false
    makes it bad data.
    """

    steps: int = 2000
    head_steps: int = 0
    batch_windows: int = 16
    window: int = 12
    learning_rate: float = 1e-3
    head_learning_rate: float = 1e-3
    weight_decay: float = 0.05
    decay_gated_only: bool = True
    warmup_steps: int = 200
    cosine: bool = True
    gradient_clip: float = 1.0
    gripper_weight: float = 0.05
    auxiliary_weight: float = 1.0
    constant_exit_weight: float = 0.0
    episodes_alike: bool = False
    meaning_weight: float = 0.0
    gates: float | None = None
    paraphrases: bool = False
    trained: tuple[str, ...] | None = None
    adam_beta2: float = 0.99
    shift_px: tuple[int, ...] = (0, 0)
    precision: str = "float32"
    pad_short_episodes: bool = True

    def __post_init__(self) -> None:
        check_numbers(self, "policy.")
        for part in self.trained or ():
            if part not in PARTS:
                raise ValueError(
                    f"policy.trained has {part!r}; allowed are {', '.join(PARTS)}."
                )
        _check_precision("policy", self.precision)
        if len(self.shift_px) != 2:
            raise ValueError(
                f"policy.shift_px is {list(self.shift_px)}; it must be two numbers of pixels, for "
                "the static and the gripper camera."
            )


@dataclass(frozen=True)
class GatePhase:
    """A gate that guesses distances learns how far every exit's pose is from full depth's.

    All else is frozen. `steps: 0` leaves it out. It learns on windows of `policy.window` steps.
    """

    steps: int = 1000
    batch_windows: int = 16
    learning_rate: float = 1e-2
    weight_decay: float = 0.01
    warmup_steps: int = 50

    def __post_init__(self) -> None:
        check_numbers(self, "gate.")


@dataclass(frozen=True)
class PracticePhase:
    """A gate that guesses success learns what comes of leaving early, in the simulator.

    All else is frozen. `steps: 0` leaves it out. episodes: of each task, in closed loop. tasks:
    empty, those that demonstrations are collected of. processes: that run them. batch_answers: of
    all processes that train together.
    """

    episodes: int = 400
    tasks: tuple[str, ...] = ()
    processes: int = 1
    steps: int = 2000
    batch_answers: int = 512
    learning_rate: float = 1e-3
    weight_decay: float = 1.0
    warmup_steps: int = 50

    def __post_init__(self) -> None:
        check_numbers(self, "practice.")


@dataclass(frozen=True)
class EvaluationHook:
    """Closed-loop episodes in the simulator between two steps of the policy phases.

    every_steps: 0 leaves them out. episodes: per task and exit. tasks: empty, those that
    demonstrations are collected of. exits: layers to stay at; empty, the deepest. seed: the first,
    counted from where evaluation seeds start; keep it apart from those that are reported.
    keep_best: the model with the highest mean success, of equal ones the last, stays in the run's
    folder `best`. A gate learns only after the policy, for the policy's last weights: where earlier
    ones were better, the gate in `best` has learned nothing.
    """

    every_steps: int = 0
    episodes: int = 10
    tasks: tuple[str, ...] = ()
    exits: tuple[int, ...] = ()
    seed: int = 100_000
    processes: int = 1
    keep_best: bool = False

    def __post_init__(self) -> None:
        check_numbers(self, "evaluation.")


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run.

    start_from: a model directory to go on training; its own configuration is the model's then, and
    there is no vision or language phase. trained_in: where the data comes from that such a model
    goes on with, `simulation` or `robot`; None: it stays as the directory says. holdout: share of
    the episodes, and sentences, kept aside for the validation losses.
    """

    model: DeerConfig = field(default_factory=DeerConfig)
    start_from: str | None = None
    trained_in: str | None = None
    vision: VisionPhase = field(default_factory=VisionPhase)
    language: LanguagePhase = field(default_factory=LanguagePhase)
    policy: PolicyPhase = field(default_factory=PolicyPhase)
    gate: GatePhase = field(default_factory=GatePhase)
    practice: PracticePhase = field(default_factory=PracticePhase)
    evaluation: EvaluationHook = field(default_factory=EvaluationHook)
    seed: int = 0
    holdout: float = 0.03
    checkpoint_every_steps: int = 100
    log_every_steps: int = 20

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.trained_in not in (None, *TRAINED_IN):
            raise ValueError(
                f"trained_in is {self.trained_in!r}; allowed are {' and '.join(TRAINED_IN)}."
            )
        if self.trained_in and not self.start_from:
            raise ValueError(
                f"trained_in is {self.trained_in!r}, and there is no start_from; of a new model, "
                "set model.trained_in."
            )
        if self.vision.start_from and self.start_from:
            raise ValueError(
                f"vision.start_from is {self.vision.start_from}, and start_from {self.start_from}; "
                "a model that is started from brings its own vision part. Leave one out."
            )
        if self.policy.gates is not None and self.start_from:
            raise ValueError(
                f"policy.gates is {self.policy.gates}; a model that is started from brings its own "
                "gates. Leave policy.gates or start_from out."
            )
        if self.policy.meaning_weight and (self.start_from or not self.language.steps):
            raise ValueError(
                f"policy.meaning_weight is {self.policy.meaning_weight}; it keeps what a language "
                "phase taught, and there is none. Set language.steps, or leave the weight at 0."
            )

    @property
    def first_gates(self) -> float:
        """What the gates of cross-attention begin at, of a model that is trained from nothing."""
        if self.policy.gates is not None:
            return self.policy.gates
        return 0.0 if self.language.steps and not self.policy.meaning_weight else 1.0

    @property
    def trained_parts(self) -> tuple[str, ...]:
        """Parts that learn in the joint phase, besides the heads."""
        if self.policy.trained is not None:
            return self.policy.trained
        if self.start_from is not None:
            return FINE_TUNED
        knows_words = self.language.steps and not self.policy.meaning_weight
        parts = TRAINED_TO_SEE if knows_words else TRAINED_FROM_NOTHING
        sees = self.vision.learns or self.vision.start_from
        return parts if sees else (*VISION, *parts)

    def check_batches(self, model: DeerConfig, processes: int) -> None:
        """ValueError where so many processes cannot share every batch in training such a model."""
        new = self.start_from is None
        gated = model.head.gate_width is not None and len(model.exit_layers) > 1
        practised = gated and model.head.guesses_success
        runs = {
            "vision.batch_frames": new and self.vision.learns,
            "language.batch_sentences": new and self.language.steps,
            "policy.batch_windows": self.policy.steps or self.policy.head_steps,
            "gate.batch_windows": gated and not practised and self.gate.steps,
            "practice.batch_answers": practised and self.practice.steps,
        }
        for key in filter(runs.get, runs):
            phase, name = key.split(".")
            size = getattr(getattr(self, phase), name)
            if size < processes:
                raise ValueError(
                    f"{key} is {size}; {processes} processes share a batch, so it must be at least "
                    f"{processes}. Raise it, or start fewer."
                )

    @classmethod
    def load(cls, path: str | Path, changes: Sequence[str] = ()) -> TrainingConfig:
        """Read a YAML file; `changes` are applied to it, each `KEY=VALUE` as `policy.steps=100`.

        Raises ValueError naming the file and the key that is wrong.
        """
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            values = {} if values is None else values
            for change in changes:
                _apply(change, values)
            if isinstance(values, dict) and {"model", "start_from"} <= values.keys():
                raise ValueError(
                    "it has both `model` and `start_from`; a model directory brings its own "
                    "configuration, so leave one out."
                )
            return from_dict(cls, values)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
        except (ValueError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error


def _check_precision(phase: str, precision: str) -> None:
    if precision not in PRECISIONS:
        raise ValueError(
            f"{phase}.precision is {precision!r}; allowed are {', '.join(PRECISIONS)}."
        )


def _apply(change: str, values: dict) -> None:
    """Put the value of `a.b=value` (YAML) at values["a"]["b"]."""
    key, separator, text = change.partition("=")
    *parents, name = key.strip().split(".")
    for parent in parents:
        values = values.setdefault(parent, {}) if isinstance(values, dict) else None
    if not separator or not isinstance(values, dict):
        raise ValueError(f"the change {change!r} is none; write KEY=VALUE, as policy.steps=100.")
    values[name] = yaml.safe_load(text)
