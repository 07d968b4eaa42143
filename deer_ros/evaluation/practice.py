"""A policy practises in the simulator, so that its gate can learn what comes of leaving early.

In every episode one exit is decided on for some steps, none at all perhaps, and then another one to
the end. Both are drawn at random, shallow ones more often, as it is them that decide what is saved.
Where the model asks its criterion at some steps only, those in between do as the model's own rule
says: what the gate learns is what comes of a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deer_ros.data.outcomes import Outcomes
from deer_ros.evaluation.episode import Environment
from deer_ros.evaluation.metaworld import MetaWorld
from deer_ros.evaluation.processes import run_jobs
from deer_ros.policy import DeerPolicy
from deer_ros.sim.tasks import training_seed

EPISODES_PER_BLOCK = 25
FIRST_NUMBER = 10_000_000
"""Layouts are numbered from here on: past those of demonstrations, which a policy may know well."""
FULL_DEPTH_BEFORE = 1 / 3
"""Share of the episodes that begin along full depth: what it understood, shallow exits remember."""
AT_FULL_DEPTH = 0.2
"""Share of the episodes that end along full depth."""
AT_ONCE = 1 / 3
"""Share of the episodes that are along one exit from the beginning."""
LONGEST_BEFORE = 0.4
"""Of a longest episode: the most that passes before the exit that is learned about."""


@dataclass(frozen=True)
class Block:
    """Some episodes of a task: what is written at once, and found again by a run that goes on."""

    task: str
    index: int
    episodes: int

    def file(self, folder: Path) -> Path:
        """Where its outcomes are."""
        return folder / f"{self.task}-{self.index:03d}.npz"


@dataclass(frozen=True)
class Plan:
    """An episode's exits: layer `before` for the first `switch` steps, layer `then` to the end.

    switch: a step at which a decision is due.
    """

    before: int
    switch: int
    then: int

    @classmethod
    def drawn(
        cls, rng: np.random.Generator, exits: Sequence[int], max_steps: int,
        steps_per_decision: int = 1,
    ) -> Plan:
        """At random: of the exits before full depth, the n-th 1/n as often as the first."""
        from_full = rng.random() < FULL_DEPTH_BEFORE
        before = exits[-1] if from_full else drawn_exit(rng, exits[:-1])
        latest = max(1, round(LONGEST_BEFORE * max_steps / steps_per_decision))
        decisions = 0 if rng.random() < AT_ONCE else int(rng.integers(1, latest + 1))
        to_full = rng.random() < AT_FULL_DEPTH
        switch = decisions * steps_per_decision
        return cls(before, switch, exits[-1] if to_full else drawn_exit(rng, exits[:-1]))


def practise(
    model: Path, folder: Path, tasks: Sequence[str], episodes: int, seed: int, processes: int,
    on_block: Callable[[int, int], None] = lambda done, all: None,
) -> Outcomes:
    """What came of `episodes` of every task.

    Blocks that are in `folder` are not run again. model: directory. on_block: hears how many blocks
    of how many are there, after each. Leaves torch's number of threads as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    threads = torch.get_num_threads()
    blocks = [
        Block(task, index, min(EPISODES_PER_BLOCK, episodes - begun))
        for index, begun in enumerate(range(0, episodes, EPISODES_PER_BLOCK))
        for task in tasks
    ]
    missing = [block for block in blocks if not block.file(folder).exists()]
    done = len(blocks) - len(missing)
    try:
        results = run_jobs(start, (str(model), folder, seed), missing, processes)
        for number, _ in enumerate(results, done + 1):
            on_block(number, len(blocks))
    finally:
        torch.set_num_threads(threads)
    return Outcomes.joined([Outcomes.load(block.file(folder)) for block in blocks])


def start(model: str, folder: Path, seed: int) -> Callable[[Block], Block]:
    """Load a policy and a simulator; what runs a block and writes it down."""
    torch.set_num_threads(1)
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    environment = MetaWorld(policy.config)

    def run(block: Block) -> Block:
        parts = []
        for offset in range(block.episodes):
            number = FIRST_NUMBER + block.index * EPISODES_PER_BLOCK + offset
            layout = training_seed(seed, block.task, number)
            environment.reset(block.task, layout)
            parts.append(run_episode(policy, environment, plan_generator(layout)))
        Outcomes.joined(parts).save(block.file(folder))
        return block

    return run


def plan_generator(layout: int) -> np.random.Generator:
    """What an episode's plan is drawn by.

    The simulator draws the layout by the same number: without another one beside it exits would
    follow from where things lie.
    """
    return np.random.default_rng((layout, 1))


def run_episode(
    policy: DeerPolicy, environment: Environment, rng: np.random.Generator
) -> Outcomes:
    """An episode along a drawn plan, and what came of it; nothing where it ended before the switch.

    From the switch on, it may last as long as is left of a longest episode after the latest switch,
    in steps, each of which may be carried out several times.
    """
    config = policy.config
    longest = max(1, config.max_episode_steps // config.action.executions_per_step)
    plan = Plan.drawn(rng, config.exit_layers, longest, config.exits.steps_per_decision)
    deepest = config.exit_layers[-1]
    at_full_depth = plan.then == deepest
    policy.reset()
    read: list[np.ndarray] = []
    poses: list[np.ndarray] = []
    for step in range(plan.switch + round((1 - LONGEST_BEFORE) * longest)):
        observation = environment.observation()
        decided = plan.before if step < plan.switch else plan.then
        held = policy.rule.held(step, decided)
        if held is not None or step < plan.switch:
            said = policy.step(observation, environment.instruction, held or decided)
        elif at_full_depth:
            explained = policy.explain(observation, environment.instruction)
            read += [_read(policy, state) for state in explained.states[:-1]]
            poses += list(explained.actions[:-1])
            said = policy.step(observation, environment.instruction, deepest)
        else:
            said = policy.step(observation, environment.instruction, plan.then)
            read.append(_read(policy, policy.state))
            poses.append(said.action)
        for _ in range(config.action.executions_per_step):
            environment.step(said.action, said.gripper)
            if environment.success:
                break
        if environment.success:
            break
    shallower = np.array(config.exit_layers[:-1])
    layers = np.resize(shallower if at_full_depth else plan.then, len(poses))
    return Outcomes(
        read=np.array(read, np.float32).reshape(len(read), config.head.lstm_width),
        poses=np.array(poses, np.float32).reshape(len(poses), 6),
        layers=layers.astype(np.int64),
        at_full_depth=np.full(len(poses), at_full_depth),
        failed=np.full(len(poses), not environment.success),
        episodes=np.zeros(len(poses), np.int64),
    )


def _read(policy: DeerPolicy, state) -> np.ndarray:
    with torch.inference_mode():
        return policy.model.head.read(state)[0].float().cpu().numpy()


def drawn_exit(rng: np.random.Generator, exits: Sequence[int]) -> int:
    """One of the exits at random, the n-th 1/n as often as the first."""
    weights = 1 / np.arange(1, len(exits) + 1)
    return int(rng.choice(exits, p=weights / weights.sum()))
