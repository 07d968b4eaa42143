"""Which values the numbers of a training configuration may have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Rule = tuple[str, Callable[[float], bool]]
"""What a number must be, in words and as a question."""

FROM_0: Rule = ("at least 0", lambda value: value >= 0)
FROM_1: Rule = ("at least 1", lambda value: value >= 1)
ABOVE_0: Rule = ("above 0", lambda value: value > 0)
FINITE: Rule = ("a finite number from 0", lambda value: 0 <= value < math.inf)
SHARE: Rule = ("at least 0 and below 1", lambda value: 0 <= value < 1)

RULES: dict[str, Rule] = {
    **dict.fromkeys(
        ("steps", "head_steps", "warmup_steps", "every_steps", "shift_px", "seed"), FROM_0
    ),
    **dict.fromkeys(
        ("batch_frames", "batch_sentences", "batch_windows", "batch_answers", "window", "episodes",
         "processes", "checkpoint_every_steps", "log_every_steps"),
        FROM_1,
    ),
    **dict.fromkeys(
        ("learning_rate", "head_learning_rate", "weight_decay", "gripper_weight",
         "auxiliary_weight", "constant_exit_weight", "meaning_weight", "gates"),
        FINITE,
    ),
    "gradient_clip": ABOVE_0,
    "holdout": SHARE,
    "adam_beta2": SHARE,
}  # fmt: skip
"""By key: what is called alike in several phases is alike."""


def check_numbers(config: Any, where: str = "") -> None:
    """ValueError naming a number of `config` that breaks its rule; where: put before its key."""
    for name, value in vars(config).items():
        if name not in RULES or value is None:
            continue
        words, allows = RULES[name]
        if not all(map(allows, value if isinstance(value, tuple) else (value,))):
            shown = list(value) if isinstance(value, tuple) else value
            raise ValueError(f"{where}{name} is {shown}; it must be {words}.")
