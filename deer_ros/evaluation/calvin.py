"""CALVIN's long-horizon benchmark: chains of five tasks, each begun where the last one ended.

The simulator is not part of this package: `calvin_env` and `calvin_agent` are the user's, installed
as its authors say, and so is a dataset, whose settings the simulator renders with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import yaml

from deer_ros.data.calvin import PROPRIOCEPTION_NAMES, CalvinUnits, proprioception
from deer_ros.data.episode import columns_of
from deer_ros.data.units import from_twist, to_twist
from deer_ros.evaluation.calvin_chains import CHAIN_LENGTH, Chain, State
from deer_ros.evaluation.episode import (
    Environment,
    Episode,
    Setting,
    mean_per_step,
    run_episode,
)
from deer_ros.evaluation.facts import versions
from deer_ros.model.config import ActionConfig, DeerConfig
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy

MAX_PERIODS = 360  # of control, per task
PACKAGES = ("calvin_env", "calvin_agent")
RENDERING = Path("validation", ".hydra", "merged_config.yaml")
TASKS = Path("callbacks", "rollout", "tasks", "new_playtable_tasks.yaml")
ANNOTATIONS = Path("annotations", "new_playtable_validation.yaml")


class ChainEnvironment(Environment, Protocol):
    """A table on which one task follows another."""

    def reset(self, start: State) -> None:
        """Put the table into a state, and the robot where it starts."""

    def begin(self, task: str) -> None:
        """Leave everything as it is and ask for a task: `instruction` and `success` are its own."""


class Job(NamedTuple):
    """A numbered chain to be run in a setting."""

    setting: Setting
    number: int
    chain: Chain

    @property
    def key(self) -> tuple[str, int]:
        """What a chain of an evaluation is known by."""
        return self.setting.name, self.number


@dataclass(frozen=True)
class ChainResult:
    """A chain that was run, with an episode per task up to the first that failed."""

    setting: str
    chain: int
    tasks: tuple[str, ...]
    episodes: tuple[Episode, ...]

    @property
    def length(self) -> int:
        """Tasks done in a row."""
        return sum(episode.success for episode in self.episodes)

    @property
    def key(self) -> tuple[str, int]:
        """As `Job.key`."""
        return self.setting, self.chain

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ChainResult:
        """What `asdict` and JSON made of one; raises as `Episode.from_json` where it is none."""
        episodes = tuple(Episode.from_json(episode) for episode in values["episodes"])
        return cls(**{**values, "tasks": tuple(values["tasks"]), "episodes": episodes})


@dataclass(frozen=True)
class Score:
    """What the paper's tables say of a setting. Means are over all steps, also of failed tasks.

    in_a_row: share of the chains of which at least 1, 2, ... 5 tasks were done, one after another.
    """

    setting: str
    chains: int
    average_length: float
    in_a_row: tuple[float, ...]
    steps: int
    mean_exit_layer: float
    mean_llm_gflops: float
    mean_step_gflops: float
    mean_step_ms: float


def run_chain(
    policy: DeerPolicy, environment: ChainEnvironment, exit_layer: int | None, chain: Chain
) -> tuple[Episode, ...]:
    """An episode per task, each with a new recurrent state, until one fails."""
    environment.reset(chain.start)
    episodes: list[Episode] = []
    for task in chain.tasks:
        environment.begin(task)
        episodes.append(run_episode(policy, environment, exit_layer, MAX_PERIODS))
        if not episodes[-1].success:
            break
    return tuple(episodes)


def score(setting: str, results: Sequence[ChainResult]) -> Score:
    """The score of all chains of one setting, at least one."""
    lengths = np.array([result.length for result in results])
    episodes = [episode for result in results for episode in result.episodes]
    return Score(
        setting=setting,
        chains=len(results),
        average_length=float(lengths.mean()),
        in_a_row=tuple(float((lengths >= n).mean()) for n in range(1, CHAIN_LENGTH + 1)),
        steps=sum(episode.steps for episode in episodes),
        **{
            quantity: mean_per_step(episodes, quantity)
            for quantity in (
                "mean_exit_layer", "mean_llm_gflops", "mean_step_gflops", "mean_step_ms",
            )
        },
    )  # fmt: skip


def start(
    model: str | None, device: str, dtype: str, dataset: str
) -> Callable[[Job], ChainResult]:
    """Load a policy and the simulator; what runs a job."""
    # As each of several processes has: more would round otherwise.
    torch.set_num_threads(1)
    policy = DeerPolicy.from_pretrained(model, device, dtype)
    environment = CalvinEnvironment(dataset, policy.config)

    def run(job: Job) -> ChainResult:
        setting, number, chain = job
        episodes = run_chain(policy, environment, setting.apply(policy), chain)
        return ChainResult(setting.name, number, chain.tasks, episodes)

    return run


def check_installation(dataset: str | Path) -> None:
    """Raise ValueError or FileNotFoundError with a sentence where the simulator cannot run."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise ValueError(
            "--env calvin needs the CALVIN simulator, and the Python modules "
            f"{' and '.join(missing)} are not installed; install them as "
            "https://github.com/mees/calvin says."
        )
    if not (Path(dataset) / RENDERING).is_file():
        raise FileNotFoundError(
            f"{dataset} is no CALVIN dataset: it has no {RENDERING}. --dataset names a folder such "
            "as task_D_D."
        )
    for file in (TASKS, ANNOTATIONS):
        if not (_configuration() / file).is_file():
            raise FileNotFoundError(
                f"the installed calvin_agent has no {_configuration() / file}; install it from its "
                "repository with pip's --editable, as its instructions say."
            )


def facts(dataset: str | Path) -> dict[str, Any]:
    """What a file of results tells of the simulator, JSON-ready; dataset: what it renders with."""
    rendering = hashlib.sha256((Path(dataset) / RENDERING).read_bytes()).hexdigest()
    return {"simulator": versions(*PACKAGES, "pybullet"), "dataset": rendering}


class CalvinEnvironment:
    """CALVIN's table as a `ChainEnvironment`."""

    def __init__(self, dataset: str | Path, config: DeerConfig) -> None:
        """Start the simulator. config: of the policy, whose actions come into CALVIN's units.

        Raises as `check_installation` does, and ValueError where the policy is of another frame or
        reads what CALVIN's robot does not tell.
        """
        check_installation(dataset)
        self._scales = _scales(config.action)
        sensed = config.proprioception
        self._columns = (
            None if sensed is None else columns_of(sensed.layout, PROPRIOCEPTION_NAMES)
        )
        cameras = {"rgb_obs": ["rgb_static", "rgb_gripper"], "depth_obs": []}
        self._env = import_module("calvin_env.envs.play_table_env").get_env(
            Path(dataset) / "validation", obs_space=cameras, show_gui=False
        )
        self._tasks = import_module("calvin_env.envs.tasks").Tasks(_read(TASKS)["tasks"])
        self._words = words()
        self._state_of = import_module(
            "calvin_agent.evaluation.utils"
        ).get_env_state_for_initial_condition
        self._seen: dict[str, Any] = {}
        self._task = ""
        self._before: Any = None
        self.instruction = ""
        self.success = False

    def reset(self, start: State) -> None:
        """Put the table into a state, and the robot where it starts."""
        robot, scene = self._state_of(start)
        self._seen = self._env.reset(robot_obs=robot, scene_obs=scene)

    def begin(self, task: str) -> None:
        """Ask for a task: done is what has changed as it says since now."""
        self._task = task
        self._before = self._env.get_info()
        (self.instruction,) = self._words[task]
        self.success = False

    def observation(self) -> Observation:
        """Both cameras' pictures, and what the policy reads of the robot's state."""
        pictures, sensed = self._seen["rgb_obs"], None
        if self._columns is not None:
            observed = np.asarray(self._seen["robot_obs"], np.float64)[None]
            sensed = proprioception(observed, "CALVIN's simulator")[0, self._columns]
        return Observation(pictures["rgb_static"], pictures["rgb_gripper"], sensed)

    def step(self, action: np.ndarray, gripper: float) -> None:
        """One control period of 1/30 s: a displacement of the target pose, as CALVIN takes it."""
        move = np.asarray(action, np.float64) * self._scales
        self._seen, _, _, now = self._env.step(np.append(move, gripper))
        done = self._tasks.get_task_info_for_set(self._before, now, {self._task})
        self.success = self.success or bool(done)


def _scales(action: ActionConfig) -> np.ndarray:
    """Factors from the policy's units at its rate to CALVIN's at its own, (6,)."""
    if action.frame != "world":
        raise ValueError(
            f"the model's actions are in the frame {action.frame!r}; CALVIN's robot takes them in "
            "the frame 'world'."
        )
    return from_twist(to_twist(np.ones(6), action), CalvinUnits()).astype(np.float64)


def words() -> dict[str, tuple[str, ...]]:
    """By task, what is said for it: the first line of its first annotation."""
    return {task: (said[0].split("\n")[0],) for task, said in _read(ANNOTATIONS).items()}


def _configuration() -> Path:
    """The folder `conf` beside the user's calvin_agent."""
    return Path(next(iter(find_spec("calvin_agent").submodule_search_locations))).parent / "conf"


def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load((_configuration() / file).read_text(encoding="utf-8"))
