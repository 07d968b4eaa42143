"""Collects demonstrations into bags: each bag by itself, so that work can be shared and resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

from deer_ros.data.bags import BagError, EpisodeBagWriter, bag_notes, is_bag
from deer_ros.sim.demonstrations import Disturbance, Leader, record_demonstration
from deer_ros.sim.robot import ANGULAR_SCALE_RAD, CONTROL_RATE_HZ, LINEAR_SCALE_M, SimulatedRobot
from deer_ros.sim.tasks import find_task, training_seed

EPISODES_PER_BAG = 25
# Attempts are numbered through all bags of a task; each bag has its own range of numbers.
ATTEMPTS_PER_BAG = 1000

_NOTES_KEY = "deer_demonstrations"


@dataclass(frozen=True)
class SimulatorUnits:
    """What one unit of action is in the simulator."""

    rate_hz: float = CONTROL_RATE_HZ
    frame: str = "world"
    linear_scale: float = LINEAR_SCALE_M
    angular_scale: float = ANGULAR_SCALE_RAD


@dataclass(frozen=True)
class Settings:
    """What, besides task and number, decides how a bag's content looks.

    policy: fingerprint of the weights of the policy that leads; None where none does.
    configuration: the same of its configuration; None also in bags of before it was told.
    """

    seed: int = 0
    noise: float = 0.25
    height: int = 128
    width: int = 128
    metaworld: str = version("metaworld")
    policy: str | None = None
    configuration: str | None = None

    def agrees(self, asked: Settings) -> bool:
        """Whether a bag of these settings may stand among those of `asked`, as far as it tells."""
        if self.configuration is None and self.policy is not None:
            asked = replace(asked, configuration=None)
        return self == asked


@dataclass(frozen=True)
class BagPlan:
    """One bag to record: `episodes` of `task`, the `index`-th bag of that task."""

    task: str
    index: int
    episodes: int

    @property
    def name(self) -> str:
        return bag_name(self.task, self.index)


@dataclass(frozen=True)
class BagSummary:
    """What is in a finished bag. `seeds` laid out its episodes, one each.

    instruction: the task's, the first of those that a task with several has.
    """

    task: str
    index: int
    instruction: str
    settings: Settings
    attempts: int
    frames: int
    seeds: tuple[int, ...]

    @property
    def name(self) -> str:
        return bag_name(self.task, self.index)

    @property
    def episodes(self) -> int:
        return len(self.seeds)


def bag_name(task: str, index: int) -> str:
    """Name of a bag's folder."""
    return f"{task}-{index:03d}"


def plan_bags(tasks: Sequence[str], episodes: int) -> list[BagPlan]:
    """The bags for `episodes` of every task: the first bag of each task, then the second, ..."""
    starts = range(0, episodes, EPISODES_PER_BAG)
    return [
        BagPlan(task, index, min(EPISODES_PER_BAG, episodes - start))
        for index, start in enumerate(starts)
        for task in tasks
    ]


def record_bag(
    folder: Path,
    plan: BagPlan,
    settings: Settings,
    robot: SimulatedRobot,
    on_attempt: Callable[[bool], None] = lambda success: None,
    leader: Leader | None = None,
) -> BagSummary:
    """Records a bag into `folder`, in place of one of its name, which stays until then.

    Half of the episodes have noise, half a displaced start; or the leader leads them all.

    Args:
        on_attempt: called after every attempt with its success; an exception out of it stops
            the recording and leaves nothing behind.

    Raises:
        ValueError: the expert failed too often, or had nothing to put right.
    """
    writer = EpisodeBagWriter(
        folder / plan.name, SimulatorUnits(), joint_names=robot.joint_names, replaces=True
    )
    disturbances = tuple(Disturbance) if leader is None else (leader,)
    seeds: list[int] = []
    frames = attempts = 0
    with writer:
        while len(seeds) < plan.episodes:
            if attempts == ATTEMPTS_PER_BAG:
                raise ValueError(_too_few(plan, settings, len(seeds), attempts))
            number = plan.index * ATTEMPTS_PER_BAG + attempts
            seed = training_seed(settings.seed, plan.task, number)
            disturbance = disturbances[len(seeds) % len(disturbances)]
            episode = record_demonstration(robot, plan.task, seed, disturbance, settings.noise)
            attempts += 1
            if episode is not None:
                writer.write(episode)
                seeds.append(seed)
                frames += len(episode)
            on_attempt(episode is not None)
        summary = BagSummary(
            plan.task,
            plan.index,
            find_task(plan.task).instruction,
            settings,
            attempts,
            frames,
            tuple(seeds),
        )
        writer.notes[_NOTES_KEY] = json.dumps(asdict(summary))
    return summary


def read_summary(bag: Path) -> BagSummary:
    """The summary of a finished bag of demonstrations.

    Raises:
        BagError: the bag is damaged or holds no demonstrations.
    """
    try:
        values = json.loads(bag_notes(bag)[_NOTES_KEY])
        settings = Settings(**values.pop("settings"))
        return BagSummary(**{**values, "settings": settings, "seeds": tuple(values["seeds"])})
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise BagError(bag, "its metadata do not say how it was recorded") from error


def find_summaries(folder: Path) -> tuple[list[BagSummary], list[BagError]]:
    """The bags of demonstrations in `folder`, and what is wrong with the damaged ones."""
    summaries, errors = [], []
    for bag in sorted(path for path in folder.glob("*") if path.is_dir() and is_bag(path)):
        try:
            summaries.append(read_summary(bag))
        except BagError as error:
            errors.append(error)
    return summaries, errors


def manifest(summaries: Sequence[BagSummary]) -> dict:
    """What a folder of demonstrations holds, as JSON takes it. All bags have one's settings."""
    tasks: dict[str, dict] = {}
    for bag in sorted(summaries, key=lambda summary: (summary.task, summary.index)):
        task = tasks.setdefault(
            bag.task,
            {
                "instruction": bag.instruction,
                "bags": [],
                "episodes": 0,
                "frames": 0,
                "attempts": 0,
                "seeds": [],
            },
        )
        task["bags"].append(bag.name)
        for key in ("episodes", "frames", "attempts"):
            task[key] += getattr(bag, key)
        task["seeds"] += bag.seeds
        task["kept_share"] = round(task["episodes"] / task["attempts"], 3)
    return {
        "settings": asdict(summaries[0].settings),
        "action": asdict(SimulatorUnits()),
        "tasks": tasks,
        "episodes": sum(task["episodes"] for task in tasks.values()),
        "frames": sum(task["frames"] for task in tasks.values()),
    }


def _too_few(plan: BagPlan, settings: Settings, succeeded: int, attempts: int) -> str:
    found = f"{succeeded} of {attempts} attempts, {plan.episodes} are needed"
    if settings.policy is not None:
        return (
            f"the expert of {plan.task} put right what the policy had begun in {found}: the "
            "policy ends most by itself, or leaves what cannot be put right; leave the task out"
        )
    return (
        f"the expert of {plan.task} succeeded in {found}; use less than --noise {settings.noise}"
    )
