"""From gathered features to a calibration: two passes, frontiers, and held-out episodes' risk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deer_ros.budget import criterion
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.calibration import METHODS, Calibration
from deer_ros.budget.cost import CostModel
from deer_ros.budget.frontier import Frontier, Samples
from deer_ros.budget.optimal import ROWS, optimal_frontier
from deer_ros.budget.solver import NEVER
from deer_ros.calibration.features import Features, reference_layer
from deer_ros.calibration.original import REFERENCE_LAYER, draw_windows
from deer_ros.calibration.rollout import Rollout, roll_out
from deer_ros.model.action_head import ActionHead
from deer_ros.model.config import COMPARING, DeerConfig

Progress = Callable[[str, int, int], None]
"""What is being done, how many of its parts are done, of how many."""


@dataclass(frozen=True)
class Settings:
    """How to calibrate. ValueError for what makes no sense.

    method: `run-time`, state carried through whole episodes in two passes, or `original`, the
    authors' windows. metric: the criterion's; None is the model's own. holdout: share of the
    episodes that only measure risk. second_pass: share of what full depth costs beyond the cheapest
    exit that the second pass's thresholds spend. rows: corners of each frontier at most. windows:
    of the original's method. seed: decides which episodes are held out, and what is drawn.
    """

    method: str = "run-time"
    metric: str | None = None
    holdout: float = 0.5
    second_pass: float = 0.5
    rows: int = ROWS
    windows: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ValueError(f"method is {self.method!r}; allowed are {', '.join(METHODS)}.")
        if self.metric is not None:
            criterion.check_metric(self.metric)
        if not 0 <= self.holdout < 1:
            raise ValueError(f"holdout is {self.holdout}; it must be at least 0 and below 1.")
        if not 0 <= self.second_pass <= 1:
            raise ValueError(f"second_pass is {self.second_pass}; it must be in 0 .. 1.")
        for name, least in (("rows", 2), ("windows", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}.")


def check_fits(settings: Settings, config: DeerConfig) -> None:
    """ValueError where such a model cannot be calibrated so."""
    metric = settings.metric or config.metric
    config.check_metric(metric)
    first = config.exit_layers[0]
    if settings.method == "original" and first == REFERENCE_LAYER and metric in COMPARING:
        raise ValueError(
            f"the method original compares the first exit with layer {REFERENCE_LAYER}, which is "
            "this model's first exit itself; use the method run-time."
        )


def needed_layers(config: DeerConfig, method: str) -> tuple[int, ...]:
    """Layers whose features a calibration needs, increasing."""
    reference = REFERENCE_LAYER if method == "original" else reference_layer(config.exit_layers)
    run_time = reference_layer(config.exit_layers)
    return tuple(sorted({*config.exit_layers, reference, run_time} - {None}))


def calibrate(
    head: ActionHead,
    config: DeerConfig,
    features: Features,
    fingerprint: str,
    settings: Settings,
    progress: Progress = lambda what, done, total: None,
) -> Calibration:
    """The whole calibration, from features after `needed_layers`.

    Raises ValueError where there are too few episodes, or too short ones, and as `check_fits`.
    """
    check_fits(settings, config)
    metric = settings.metric or config.metric
    solving, held_out = split(len(features.lengths), settings.holdout, settings.seed)
    solving_features = features.chosen(solving)
    gathered, episode, thresholds = _gather(head, config, solving_features, settings, metric)
    calibration = Calibration(
        exit_layers=config.exit_layers,
        poses=gathered.poses,
        gripper=gathered.gripper,
        reference_poses=gathered.reference_poses,
        expected_losses=gathered.expected_losses,
        episode=solving[episode].astype(np.int32),
        taken=gathered.taken,
        fingerprint=fingerprint,
        metric=metric,
        method=settings.method,
        thresholds=thresholds,
        guesses_success=config.head.guesses_success,
        dtype=str(features.values.dtype).removeprefix("torch."),
    )
    frontiers = _frontiers(calibration, config, settings.rows, progress)
    if len(held_out):
        frontiers = _with_losses(
            head, config, features.chosen(held_out), frontiers, metric, progress
        )
    return dataclasses.replace(calibration, frontiers=frontiers)


def split(episodes: int, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Which episodes thresholds are solved from, sorted, and which are held out, in random order.

    At least one of them is solved from; where any are to be held out, at least one is.
    """
    order = np.random.default_rng(seed).permutation(episodes)
    count = min(max(round(holdout * episodes), int(holdout > 0)), episodes - 1)
    return np.sort(order[count:]), order[:count]


def _gather(
    head: ActionHead, config: DeerConfig, features: Features, settings: Settings, metric: str
) -> tuple[Rollout, np.ndarray, tuple[float, ...]]:
    """Every exit's answers, each one's episode, and the thresholds that chose the state."""
    exits = config.exit_layers
    if settings.method == "original":
        answers, episode = draw_windows(head, features, exits, settings.windows, settings.seed)
        return answers, episode, ()
    episode = np.repeat(np.arange(len(features.lengths)), features.lengths)
    never = np.full(len(exits), NEVER, np.float32)
    first = roll_out(head, features, exits, never, metric)
    frontier = optimal_frontier(_samples(first, config, metric), settings.rows)
    low, high = frontier.cost[[0, -1]]
    knob = frontier.knob_for(low + settings.second_pass * (high - low))
    thresholds = frontier.thresholds[round(knob)]
    cadence = Cadence.of(config)
    second = roll_out(head, features, exits, thresholds, metric, cadence)
    # What thresholds are solved from are the steps that decide.
    steps = np.arange(len(episode)) - np.repeat(features.starts[:-1], features.lengths)
    decide = cadence.decides(steps)
    return second.of(decide), episode[decide], tuple(map(float, thresholds))


def _costs(config: DeerConfig) -> np.ndarray:
    """The language model's cost at every exit; its scale does not matter, so neither does the
    prompt, but for the attention's share."""
    return CostModel(config, config.prompt.max_tokens).exit_gflops("llm")


def _samples(rollout: Rollout, config: DeerConfig, metric: str) -> Samples:
    everything = Calibration(
        config.exit_layers, rollout.poses, rollout.gripper, rollout.reference_poses,
        np.zeros(len(rollout.taken), np.int32), rollout.taken, "",
        expected_losses=rollout.expected_losses, guesses_success=config.head.guesses_success,
    )
    return Samples(everything.deltas(metric), everything.losses(metric), _costs(config))


def _frontiers(
    calibration: Calibration, config: DeerConfig, rows: int, progress: Progress
) -> dict[int, Frontier]:
    """One for every number of permitted exits."""
    deltas, losses, costs = calibration.deltas(), calibration.losses(), _costs(config)
    frontiers = {}
    for exits in range(1, len(costs) + 1):
        samples = Samples(deltas[:exits], losses[:exits], costs[:exits])
        frontiers[exits] = optimal_frontier(samples, rows)
        progress("solving", exits, len(costs))
    return frontiers


def _with_losses(
    head: ActionHead,
    config: DeerConfig,
    features: Features,
    frontiers: dict[int, Frontier],
    metric: str,
    progress: Progress,
) -> dict[int, Frontier]:
    """Every row rolled out over held-out episodes, against their full-depth rollout.

    Both rollouts carry their own recurrent state, so that what early exits do to later steps counts
    too.
    """
    exits = config.exit_layers
    never = np.full(len(exits), NEVER, np.float32)
    full_depth = roll_out(head, features, exits, never, metric).actions
    total, done = sum(map(len, frontiers.values())), 0
    measured = {}
    for count, frontier in frontiers.items():
        losses = []
        for rows in np.array_split(frontier.thresholds, _parts(features, len(frontier))):
            losses.append(_losses(head, features, exits[:count], rows, metric, full_depth))
            done += len(rows)
            progress("measuring risk", done, total)
        measured[count] = dataclasses.replace(frontier, losses=np.concatenate(losses))
    return measured


def _losses(
    head: ActionHead,
    features: Features,
    exit_layers: tuple[int, ...],
    rows: np.ndarray,
    metric: str,
    full_depth: np.ndarray,
) -> np.ndarray:
    """Every episode's mean difference to full depth under every row: float32 (rows, M)."""
    episodes = len(features.lengths)
    repeated = features.chosen(np.tile(np.arange(episodes), len(rows)))
    thresholds = np.repeat(rows, episodes, axis=0)
    actions = roll_out(head, repeated, exit_layers, thresholds, metric).actions
    errors = criterion.delta(actions, np.tile(full_depth, (len(rows), 1)), "l2")
    sums = np.add.reduceat(errors, repeated.starts[:-1])
    return (sums / repeated.lengths).reshape(len(rows), episodes).astype(np.float32)


def _parts(features: Features, rows: int) -> int:
    """Into how many rollouts to divide rows, so that none repeats more than 64 MiB of features."""
    size = features.values.numel() * features.values.element_size()
    return min(rows, -(-rows * size // (64 << 20)))
