"""What `deer train` is told: one YAML file, checked like a model's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from deer_ros.model.config import DeerConfig
from deer_ros.model.schema import from_dict


@dataclass(frozen=True)
class VisionPhase:
    """Tower and resampler learn to tell the simulator's state from the pictures.

    It stands in for a pretrained tower; `steps: 0` leaves it out. `shift_px`: pictures are moved by
    up to so many pixels.
    """

    steps: int = 2000
    batch_frames: int = 96
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 100
    shift_px: int = 0


@dataclass(frozen=True)
class PolicyPhase:
    """Layers and heads learn the expert's actions on windows of an episode.

    steps: joint phase; head_steps: the heads alone, on frozen layers. window: steps of a window.
    gripper_weight: of the gripper's loss beside the pose's. constant_exit_weight: of the shared
    head's loss along every exit taken constantly, beside the two random samplings (0: as in the
    original). episodes_alike: every episode is drawn equally often, whatever its length; else every
    window, as in the original. decay_gated_only: weight decay on gated cross-attention alone, as in the original.
    cosine: learning rate falls to a twentieth over the phase; else it stays.
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


@dataclass(frozen=True)
class TrainingConfig:
    """A whole run. `holdout`: share of the episodes kept aside for the validation losses."""

    model: DeerConfig = field(default_factory=DeerConfig)
    vision: VisionPhase = field(default_factory=VisionPhase)
    policy: PolicyPhase = field(default_factory=PolicyPhase)
    seed: int = 0
    holdout: float = 0.03
    checkpoint_every_steps: int = 100
    log_every_steps: int = 20

    @classmethod
    def load(cls, path: str | Path) -> TrainingConfig:
        """Read a YAML file. Raises ValueError naming the file and the key that is wrong."""
        try:
            values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
            return from_dict(cls, values if values is not None else {})
        except (ValueError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: {error}") from error
