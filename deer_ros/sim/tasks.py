"""The tasks of the simulated robot, and the seeds that are for training and for evaluation.

Free of MuJoCo, so that listing tasks is cheap.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

EVALUATION_SEED_START = 1_000_000
"""Seeds from here on lay out scenes for evaluation, smaller ones for demonstrations."""


@dataclass(frozen=True)
class Task:
    """One task: its name, the environment it runs in and what the robot is told.

    environment: of Meta-World, or `THREE_BALLS`; there `choice` says which ball is meant.
    noise_factor: how much of the usual noise the expert bears in demonstrations.
    other: the task whose words may be said instead, as nothing in the scene rules it out and none
    of its layouts has it done along with this one; or empty.
    """

    name: str
    environment: str
    instruction: str
    noise_factor: float = 1.0
    choice: str = ""
    other: str = ""


THREE_BALLS = "three-balls"
"""The scene of `deer_ros.sim.balls`."""

# Experts that hold or balance something bear less noise.
_DELICATE = 0.6

_ALL = (
    Task("reach", "reach-v3", "move the gripper to the red ball"),
    Task("push", "push-v3", "push the red puck to the green ball", _DELICATE),
    Task("pick-place", "pick-place-v3", "lift the red puck to the blue ball", _DELICATE),
    Task("drawer-open", "drawer-open-v3", "open the drawer"),
    Task("drawer-close", "drawer-close-v3", "close the drawer"),
    Task("button-press-topdown", "button-press-topdown-v3", "press the button from above"),
    Task("window-open", "window-open-v3", "open the window"),
    Task("window-close", "window-close-v3", "close the window"),
    Task("faucet-open", "faucet-open-v3", "open the faucet", other="faucet-close"),
    Task("faucet-close", "faucet-close-v3", "close the faucet", other="faucet-open"),
    Task("door-open", "door-open-v3", "open the door"),
    Task("door-close", "door-close-v3", "close the door"),
    Task("door-lock", "door-lock-v3", "lock the door", _DELICATE),
    Task("door-unlock", "door-unlock-v3", "unlock the door"),
    Task("coffee-push", "coffee-push-v3", "push the cup to the coffee machine", _DELICATE),
    Task("coffee-pull", "coffee-pull-v3", "pull the cup from the coffee machine", _DELICATE),
    Task("plate-slide", "plate-slide-v3", "slide the plate into the goal"),
    Task("plate-slide-side", "plate-slide-side-v3", "slide the plate sideways into the goal"),
    Task("plate-slide-back", "plate-slide-back-v3", "pull the plate out of the goal", _DELICATE),
    Task(
        "plate-slide-back-side",
        "plate-slide-back-side-v3",
        "pull the plate sideways out of the goal",
        _DELICATE,
    ),
    Task("handle-press", "handle-press-v3", "press the handle down"),
    *(
        Task(f"ball-{name}", THREE_BALLS, f"touch the {words}", 1.0, choice, f"ball-{other}")
        for name, choice, words, other in (
            ("red", "red", "red ball", "green"),
            ("green", "green", "green ball", "blue"),
            ("blue", "blue", "blue ball", "red"),
            ("left", "leftmost", "ball on the left", "middle"),
            ("middle", "middle", "ball in the middle", "right"),
            ("right", "rightmost", "ball on the right", "left"),
            ("next", "next to red", "ball next to the red one", "red"),
            ("next-left", "next to leftmost", "ball next to the one on the left", "left"),
        )
    ),
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}
"""Every task by its name."""

DEMONSTRATION_TASKS: tuple[str, ...] = (
    "push", "pick-place", "drawer-open", "drawer-close", "button-press-topdown", "window-open",
    "window-close", "faucet-open", "faucet-close", "ball-red", "ball-green", "ball-blue",
    "ball-left", "ball-middle", "ball-right", "ball-next", "ball-next-left",
)  # fmt: skip
"""The benchmark's, which the bundled model learned: demonstrated and evaluated when none is named.
"""


def find_task(name: str) -> Task:
    """The task of that name; ValueError lists those there are."""
    if name not in TASKS:
        raise ValueError(f"there is no task {name!r}; the tasks are {', '.join(TASKS)}")
    return TASKS[name]


def training_seed(seed: int, task: str, index: int) -> int:
    """Layout seed of attempt `index` at a demonstration, in [0, EVALUATION_SEED_START).

    A pure function of its arguments, the same on every machine and in every version of Python.
    """
    digest = hashlib.sha256(f"{seed}/{task}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % EVALUATION_SEED_START
