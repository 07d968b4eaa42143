"""What an exit is taken by: several criteria at the same cost, in closed loop, on the same scenes.

Thresholds of each criterion are solved from the same demonstrations, for the same average GFLOPs of
the language model, by the solver `optimal`: for the least difference of actions, or, where a gate
guesses success, for the least success lost. The criteria: `action`, how far successive exits'
actions differ (the paper's); `feature`, one minus the cosine similarity of what the head hears at
successive exits; `time`, how long the episode has lasted; `gate`, the head's own guess, where the
model has one; and `chance`, that asks nothing. (The first three are the ablation of Yue et al.
2024.) All are asked as often as the model's own rule says. Every exit is computed where they are
asked, so that only what is chosen differs; costs are those of the chosen exit.

    python benchmarks/criteria.py MODEL DEMONSTRATIONS --average-gflops 0.006 --out criteria.jsonl
    deer compare criteria.jsonl --against chance
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from deer_ros import DeerPolicy
from deer_ros.budget import criterion
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.cost import CostModel
from deer_ros.budget.frontier import Frontier, Samples
from deer_ros.budget.optimal import optimal_frontier
from deer_ros.budget.solver import NEVER
from deer_ros.calibration.features import Features, gather_features
from deer_ros.calibration.rollout import Rollout, roll_out
from deer_ros.checkpoint.fingerprint import weights_fingerprint
from deer_ros.data.episode import Episode
from deer_ros.data.readers import read_all_episodes
from deer_ros.evaluation import rollouts
from deer_ros.evaluation.comparison import by_setting, summarise
from deer_ros.evaluation.episode import run_episode
from deer_ros.evaluation.facts import config_fingerprint
from deer_ros.evaluation.metaworld import world
from deer_ros.evaluation.processes import run_jobs
from deer_ros.evaluation.results import ResultsFile
from deer_ros.model.config import LEARNED
from deer_ros.report.progress import track
from deer_ros.report.tables import console, success_table

ACTION, FEATURE, TIME, GATE, CHANCE = "action", "feature", "time", "gate", "chance"


def main() -> None:
    arguments = parse_arguments()
    places = world(arguments.tasks.split(",") if arguments.tasks else [])
    told = hashlib.sha256()
    rules = solve(arguments.model, arguments.demonstrations, arguments.average_gflops, told)
    file = ResultsFile(arguments.out, {
        "environment": places.name, "max_steps": places.max_steps,
        "simulator": dict(places.simulator), "demonstrations": told.hexdigest(),
        "weights": weights_fingerprint(arguments.model),
        "config": config_fingerprint(arguments.model),
    })
    for rule in rules:
        file.define(rule.name, {"average_gflops": arguments.average_gflops})
    first = places.first_seed + arguments.seed
    jobs = [Job(rule, task, first + number) for task in places.tasks
            for number in range(arguments.episodes) for rule in rules]
    kept = {rollout.key for rollout in map(rollouts.Rollout.from_json, file.episodes)}
    left = [job for job in jobs if job.key not in kept]
    results = run_jobs(start, (str(arguments.model),), left, arguments.processes)
    for rollout in track(results, len(left), lambda r: f"{r.setting} {r.task}"):
        file.add(asdict(rollout))
        file.episodes.append(asdict(rollout))
    found = by_setting([rollouts.Rollout.from_json(values) for values in file.episodes])
    console().print(success_table([summarise(name, list(e.values())) for name, e in found.items()]))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("demonstrations", type=Path, help="to solve thresholds from")
    parser.add_argument("--average-gflops", type=float, required=True,
                        help="of the language model, per step")
    parser.add_argument("--tasks", help="comma-separated (default: those of the bundled model)")
    parser.add_argument("--episodes", type=int, default=50, help="per task and criterion")
    parser.add_argument("--seed", type=int, default=0, help="the first, as of `deer evaluate`")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="every episode, for `deer compare`")
    return parser.parse_args()


@dataclass(frozen=True, eq=False)
class Rule:
    """A criterion, and the mix of two rows of thresholds that spends what was asked for."""

    name: str
    frontier: Frontier
    knob: float


@dataclass(frozen=True, eq=False)
class Job:
    rule: Rule
    task: str
    seed: int

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.rule.name, self.task, self.task, self.seed


def solve(model: Path, demonstrations: Path, average_gflops: float, told) -> list[Rule]:
    """Every criterion's thresholds, from answers at full depth. told: a hash that hears from which
    demonstrations."""
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    config, head = policy.config, policy.model.head
    # The layer before the first exit, if any, is what that exit is compared with.
    before = config.exit_layers[0] - 1
    layers = (before,) * (before > 0) + config.exit_layers
    episodes = heard(read_all_episodes([demonstrations], config.action), told)
    features = gather_features(policy, episodes, layers)
    never = np.full(len(config.exit_layers), NEVER, np.float32)
    answers = roll_out(head, features, config.exit_layers, never, "l2")
    errors = criterion.delta(answers.poses, answers.poses[:, -1:]).T
    costs = Cadence.of(config).per_step(
        CostModel(config, config.prompt.usual_tokens).exit_gflops("llm"), config.exit_layers
    )
    rules = []
    for name, values in values_of(answers, features).items():
        by_success = name == GATE and config.head.guesses_success
        frontier = optimal_frontier(Samples(values, lost(values) if by_success else errors, costs))
        rules.append(Rule(name, frontier, frontier.knob_for(average_gflops)))
    return rules


def heard(episodes: Iterable[Episode], told) -> Iterator[Episode]:
    """The episodes; `told` hears what was said, seen and done in them."""
    for episode in episodes:
        told.update(episode.instruction.encode())
        for values in (episode.stamps_ns, episode.static, episode.gripper, episode.actions):
            told.update(b"" if values is None else np.ascontiguousarray(values).tobytes())
        yield episode


def values_of(answers: Rollout, features: Features) -> dict[str, np.ndarray]:
    """What every criterion says at every exit of every step: float32 (K, n) by name."""
    steps, exits = answers.poses.shape[:2]
    ages = np.arange(steps) - np.repeat(features.starts[:-1], features.lengths)
    found = {
        ACTION: criterion.values(answers.poses, answers.reference_poses, None, "l2"),
        FEATURE: similarity(features.values, exits),
        TIME: np.repeat(ages[:, None], exits, axis=1),
        CHANCE: np.random.default_rng(0).random((steps, 1)).repeat(exits, axis=1),
    }
    if answers.expected_losses is not None:
        found[GATE] = answers.expected_losses
    return {name: np.ascontiguousarray(v.T, np.float32) for name, v in found.items()}


def lost(guesses: np.ndarray) -> np.ndarray:
    """What a gate says that each exit loses of success: full depth loses none."""
    guesses = guesses.copy()
    guesses[-1] = 0
    return guesses


def similarity(values: torch.Tensor, exits: int) -> np.ndarray:
    """One minus the cosine of features (n, L, d) after successive exits: float32 (n, exits).

    NaN at an exit that nothing comes before.
    """
    alike = torch.cosine_similarity(values[:, 1:].float(), values[:, :-1].float(), dim=-1)
    found = np.full((len(values), exits), np.nan, np.float32)
    found[:, exits - alike.shape[1]:] = 1 - alike.numpy()
    return found


class Chooser:
    """A policy that computes every exit and takes the one that the rule says."""

    def __init__(self, policy: DeerPolicy, rule: Rule, seed: int) -> None:
        self.config = policy.config
        self._policy, self._rule = policy, rule
        self._random = np.random.default_rng(seed)
        # Not every episode starts in the same row.
        self._steps, self._age, self._decided = seed, 0, None
        never = [NEVER] * len(self.config.exit_layers)
        policy.set_thresholds(
            never, LEARNED if rule.name == GATE else "l2",
            steps_per_decision=None, max_layer_between=None,
        )

    def reset(self) -> None:
        self._policy.reset()
        self._age = 0

    def step(self, observation, instruction, exit_layer=None):
        """As `DeerPolicy.step`; `exit_layer` is the rule's."""
        held = self._policy.rule.held(self._age, self._decided)
        if held is None:
            self._decided = held = self._decide(observation, instruction)
        self._age += 1
        return self._policy.step(observation, instruction, held)

    def _decide(self, observation, instruction) -> int:
        values = self._values(observation, instruction)
        rule = self._rule
        agrees = values <= rule.frontier.thresholds[rule.frontier.row(rule.knob, self._steps)]
        agrees[-1] = True
        self._steps += 1
        return self.config.exit_layers[int(agrees.argmax())]

    def _values(self, observation, instruction) -> np.ndarray:
        exits: Sequence[int] = self.config.exit_layers
        if self._rule.name in (ACTION, GATE):
            return self._policy.explain(observation, instruction).deltas
        if self._rule.name == FEATURE:
            layers = (exits[0] - 1,) * (exits[0] > 1) + exits
            heard = self._policy.features(observation, instruction, layers)
            return similarity(heard[None], len(exits))[0]
        return np.full(len(exits), self._age if self._rule.name == TIME else self._random.random())


def start(model: str):
    """A policy and a simulator; what runs a job."""
    torch.set_num_threads(1)
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    environment = world().open(policy.config)

    def run(job: Job) -> rollouts.Rollout:
        environment.reset(job.task, job.seed, job.task)
        chooser = Chooser(policy, job.rule, job.seed)
        episode = run_episode(chooser, environment, None, policy.config.max_episode_steps)
        return rollouts.Rollout(**asdict(episode), setting=job.rule.name, task=job.task,
                                seed=job.seed, said=job.task)

    return run


if __name__ == "__main__":
    main()
