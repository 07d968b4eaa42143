"""The tasks of the simulated robot, and the seeds that are for training and for evaluation.

Free of MuJoCo, so that listing tasks is cheap.
"""

from __future__ import annotations

from deer_ros.sim.ball_tasks import BALL_TASKS
from deer_ros.sim.task import Request, Task, digest

EVALUATION_SEED_START = 1_000_000
"""Seeds from here on lay out scenes for evaluation, smaller ones for demonstrations."""


def _task(name: str, environment: str, instruction: str, noise_factor: float = 1.0,
          other: str = "") -> Task:
    return Task(name, environment, (Request(instruction),), noise_factor, other)


# Experts that hold or balance something bear less noise.
_DELICATE = 0.6

_ALL = (
    _task("reach", "reach-v3", "move the gripper to the red ball"),
    _task("push", "push-v3", "push the red puck to the green ball", _DELICATE),
    _task("pick-place", "pick-place-v3", "lift the red puck to the blue ball", _DELICATE),
    _task("drawer-open", "drawer-open-v3", "open the drawer"),
    _task("drawer-close", "drawer-close-v3", "close the drawer"),
    _task("button-press-topdown", "button-press-topdown-v3", "press the button from above"),
    _task("window-open", "window-open-v3", "open the window"),
    _task("window-close", "window-close-v3", "close the window"),
    _task("faucet-open", "faucet-open-v3", "open the faucet", other="faucet-close"),
    _task("faucet-close", "faucet-close-v3", "close the faucet", other="faucet-open"),
    _task("door-open", "door-open-v3", "open the door"),
    _task("door-close", "door-close-v3", "close the door"),
    _task("door-lock", "door-lock-v3", "lock the door", _DELICATE),
    _task("door-unlock", "door-unlock-v3", "unlock the door"),
    _task("coffee-push", "coffee-push-v3", "push the cup to the coffee machine", _DELICATE),
    _task("coffee-pull", "coffee-pull-v3", "pull the cup from the coffee machine", _DELICATE),
    _task("plate-slide", "plate-slide-v3", "slide the plate into the goal"),
    _task("plate-slide-side", "plate-slide-side-v3", "slide the plate sideways into the goal"),
    _task("plate-slide-back", "plate-slide-back-v3", "pull the plate out of the goal", _DELICATE),
    _task(
        "plate-slide-back-side",
        "plate-slide-back-side-v3",
        "pull the plate sideways out of the goal",
        _DELICATE,
    ),
    _task("handle-press", "handle-press-v3", "press the handle down"),
    *BALL_TASKS,
)

TASKS: dict[str, Task] = {task.name: task for task in _ALL}
"""Every task by its name."""

DEMONSTRATION_TASKS: tuple[str, ...] = (
    "push", "pick-place", "drawer-open", "drawer-close", "button-press-topdown", "window-open",
    "window-close", "faucet-open", "faucet-close", "ball-red", "ball-green", "ball-blue",
    "ball-left", "ball-middle", "ball-right", "ball-next", "ball-next-left", "ball-owned",
    "ball-owner", "ball-placed",
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

    The same on every machine and in every version of Python.
    """
    return digest(f"{seed}/{task}/{index}") % EVALUATION_SEED_START
