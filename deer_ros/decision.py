"""What a policy says: one decision and its cost, every exit's answer, a change of depth."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from deer_ros.model.action_head import HeadState
from deer_ros.model.language import DecoderLayer


class NonFiniteActionError(ArithmeticError):
    """The model answered NaN or infinity; nothing of that step was kept."""


@dataclass(frozen=True)
class StepCost:
    """What one step cost: 1e9 multiply-adds and measured milliseconds per part.

    On a GPU, where work is asynchronous, language and head are told apart only roughly; their sum
    holds, as the criterion waits for the result.
    """

    vision_gflops: float
    language_gflops: float
    head_gflops: float
    preprocessing_ms: float
    vision_ms: float
    language_ms: float
    head_ms: float

    @property
    def llm_gflops(self) -> float:
        """The decoder layers alone, as the paper counts."""
        return self.language_gflops

    @property
    def step_gflops(self) -> float:
        """Vision, language and head."""
        return self.vision_gflops + self.language_gflops + self.head_gflops

    @property
    def step_ms(self) -> float:
        """The model's own time, preprocessing included."""
        return self.preprocessing_ms + self.vision_ms + self.language_ms + self.head_ms


@dataclass(frozen=True)
class Step:
    """One decision.

    action: float32 (6,), dx dy dz droll dpitch dyaw in the model's units. gripper: exactly -1
    (close) or +1 (open). exit_layer: layers that ran, from 1. deltas: float32 (exits,), NaN where
    not evaluated. stopped_by: why it went no deeper: `criterion` (two exits agreed), `deepest` (no
    deeper exit is permitted), `fixed` (that exit was asked for, or kept from an earlier decision),
    `deadline` (more would have taken longer than `budget.latency_ms`).
    """

    action: np.ndarray
    gripper: float
    gripper_probability: float
    exit_layer: int
    deltas: np.ndarray
    cost: StepCost
    _state: HeadState = field(repr=False, compare=False)
    stopped_by: str = "deepest"


@dataclass(frozen=True)
class Explanation:
    """What every permitted exit would have answered, for the same recurrent state.

    layers: (E,). actions: float32 (E, 6). gripper_probabilities: float32 (E,). deltas: float32
    (E,). states: the recurrent state that would follow from each exit. reference_action: float32
    (6,), the pseudo action that the first exit is compared with, or None.
    """

    layers: tuple[int, ...]
    actions: np.ndarray
    gripper_probabilities: np.ndarray
    deltas: np.ndarray
    states: tuple[HeadState, ...]
    reference_action: np.ndarray | None
    reference_gripper_probability: float | None


@dataclass(frozen=True)
class DepthChange:
    """What takes a policy of `before` layers to `after`: the layers that it has not yet.

    asked: the depth that was asked for, deeper than `after` where a budget of memory stops it.
    Layers stay in memory as long as this does, too.
    """

    before: int
    after: int
    layers: tuple[DecoderLayer, ...] = field(repr=False)
    asked: int = 0
