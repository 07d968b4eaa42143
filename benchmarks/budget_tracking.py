"""What steps cost against what was asked, while the scene changes half-way.

The policy works through episodes in the simulator, closed loop, for 1000 steps under one budget of
average GFLOPs. After half of them the pictures turn dark and noisy, or other tasks come. The same
tasks and seeds are run with the thresholds alone and with the closed loop on them. Needs a model
with a calibration.

    deer collect --out demos && deer calibrate demos
    python benchmarks/budget_tracking.py
    python benchmarks/budget_tracking.py --shift tasks --average-gflops 0.02 --picture tracking.png
"""
from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deer_ros import Budget, DeerPolicy, Observation
from deer_ros.budget.cost import CostModel
from deer_ros.evaluation.metaworld import MetaWorld
from deer_ros.report.tables import console, number, table
from deer_ros.sim.tasks import DEMONSTRATION_TASKS, EVALUATION_SEED_START, TASKS

WINDOW = 200
MEAN_TOLERANCE, WINDOW_TOLERANCE = 0.01, 0.06  # of the controllable part
SHIFTS = ("dark", "noise", "tasks")
BRIGHTNESS, NOISE = 0.35, 25.0


@dataclass(frozen=True)
class Run:
    """spent, fixed, full: GFLOPs of every step, and what its prompt costs at least and at most."""

    name: str
    asked: float
    spent: np.ndarray
    fixed: np.ndarray
    full: np.ndarray
    episodes: int
    successes: int

    @property
    def controllable(self) -> float:
        """Maximum minus fixed part, in the mean over the prompts."""
        return float((self.full - self.fixed).mean())

    @property
    def mean_error(self) -> float:
        """Of the mean since the budget was set, as a share of the controllable part."""
        return abs(float(self.spent.mean()) - self.asked) / self.controllable

    @property
    def windows(self) -> np.ndarray:
        """Means of all stretches of WINDOW steps."""
        return np.convolve(self.spent, np.full(WINDOW, 1 / WINDOW), "valid")

    @property
    def window_error(self) -> float:
        """The 95th percentile over the windows, as a share of the controllable part."""
        return float(np.percentile(np.abs(self.windows - self.asked), 95)) / self.controllable


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model directory (default: the bundled model)")
    parser.add_argument("--average-gflops", type=float, default=0.015)
    parser.add_argument("--scope", choices=("llm", "step"), default="llm")
    parser.add_argument("--solver", default="optimal")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--shift", choices=SHIFTS, default="dark", help="what changes half-way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="draw the running means to this file")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    arguments = parser.parse_args()
    if arguments.steps < 2 * WINDOW:
        parser.error(f"--steps is {arguments.steps}; it must be at least {2 * WINDOW}.")
    torch.set_num_threads(1)
    try:
        policy = DeerPolicy.from_pretrained(arguments.model, device="cpu")
        runs = [run(policy, arguments, tracking) for tracking in (False, True)]
    except (OSError, ValueError) as error:
        parser.error(str(error))
    figures = [describe(r) for r in runs]
    held = runs[-1].mean_error <= MEAN_TOLERANCE and runs[-1].window_error <= WINDOW_TOLERANCE
    if arguments.json:
        print(json.dumps({"shift": arguments.shift, "runs": figures, "held": held}))
    else:
        print_table(arguments, figures, held)
    if arguments.picture:
        draw(runs, arguments, arguments.picture)
    return 0 if held else 1


def run(policy: DeerPolicy, arguments: argparse.Namespace, tracking: bool) -> Run:
    """All steps under the budget, from its setting on."""
    policy.set_budget(Budget(
        average_gflops=arguments.average_gflops, scope=arguments.scope, solver=arguments.solver,
        tracking=tracking,
    ))
    random = np.random.default_rng(arguments.seed)
    environment = MetaWorld(policy.config)
    spent: list[tuple[float, float, float]] = []
    episodes = successes = 0
    # Of the package's tasks those whose words this model was trained with.
    known = [task for task in DEMONSTRATION_TASKS
             if not any(policy.prompts.unknown_words(request.instruction)
                        for request in TASKS[task].requests)]
    for task, seed in episode_stream(known, arguments, spent):
        environment.reset(task, seed, task)
        policy.reset()
        episodes += 1
        ends = CostModel(policy.config, len(policy.prompts.encode(environment.instruction)))
        fixed, *_, full = ends.exit_gflops(arguments.scope)
        for _ in range(policy.config.max_episode_steps):
            seen = environment.observation()
            if shifted(arguments, spent) and arguments.shift != "tasks":
                seen = disturbed(seen, arguments.shift, random)
            step = policy.step(seen, environment.instruction)
            environment.step(step.action, step.gripper)
            spent.append((getattr(step.cost, f"{arguments.scope}_gflops"), fixed, full))
            if environment.success or len(spent) == arguments.steps:
                break
        successes += environment.success
    columns = np.array(spent).T
    name = "with tracking" if tracking else "thresholds alone"
    return Run(name, arguments.average_gflops, *columns, episodes, successes)


def shifted(arguments: argparse.Namespace, spent: list) -> bool:
    """Whether the change has come."""
    return len(spent) >= arguments.steps // 2


def episode_stream(
    known: list[str], arguments: argparse.Namespace, spent: list
) -> Iterator[tuple[str, int]]:
    """Task and seed of episode after episode, until all steps are made."""
    groups = known, known
    if arguments.shift == "tasks":
        groups = known[: len(known) // 2], known[len(known) // 2:]
    for episode in itertools.count():
        if len(spent) >= arguments.steps:
            return
        tasks = groups[shifted(arguments, spent)]
        yield tasks[episode % len(tasks)], EVALUATION_SEED_START + arguments.seed + episode


def disturbed(seen: Observation, shift: str, random: np.random.Generator) -> Observation:
    """Darker pictures, or noisy ones."""
    pictures = []
    for picture in (seen.static, seen.gripper):
        values = picture.astype(np.float32)
        if shift == "dark":
            values *= BRIGHTNESS
        else:
            values += random.normal(0, NOISE, picture.shape)
        pictures.append(np.clip(values, 0, 255).astype(np.uint8))
    return Observation(*pictures, seen.proprioception)


def describe(r: Run) -> dict:
    half = len(r.spent) // 2
    return {
        "run": r.name, "asked_gflops": r.asked, "steps": len(r.spent),
        "mean_gflops": float(r.spent.mean()), "first_half_gflops": float(r.spent[:half].mean()),
        "second_half_gflops": float(r.spent[half:].mean()), "controllable_gflops": r.controllable,
        "mean_error": r.mean_error, "window_error_p95": r.window_error,
        "successes": r.successes, "episodes": r.episodes,
    }


def print_table(arguments: argparse.Namespace, figures: list[dict], held: bool) -> None:
    first = figures[0]
    title = (f"{first['asked_gflops']:g} GFLOPs a step asked on average, scope {arguments.scope}, "
             f"{first['steps']} steps, half-way: {arguments.shift}")
    header = ("", "mean", "before", "after", "error of\nmean, %", f"{WINDOW}-step\nwindows p95, %",
              "success")
    rows = [(f["run"], number(f["mean_gflops"]), number(f["first_half_gflops"]),
             number(f["second_half_gflops"]), number(100 * f["mean_error"], 2),
             number(100 * f["window_error_p95"], 2), f"{f['successes']}/{f['episodes']}")
            for f in figures]
    out = console()
    out.print(table(title, header, rows))
    part = number(first["controllable_gflops"])
    out.print(f"errors in % of the controllable part, {part} GFLOPs")
    out.print(f"{'ok  ' if held else 'FAIL'} with tracking: mean within "
              f"{100 * MEAN_TOLERANCE:g} %, windows within {100 * WINDOW_TOLERANCE:g} %")


def draw(runs: list[Run], arguments: argparse.Namespace, file: Path) -> None:
    """Means of the windows and since the beginning, over the steps."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    axes = figure.subplots()
    scale = 1e3 if arguments.average_gflops < 0.1 else 1.0
    for r, colour in zip(runs, ("#dd6b20", "#2b6cb0")):
        steps = np.arange(1, len(r.spent) + 1)
        axes.plot(steps[WINDOW - 1:], scale * r.windows, color=colour,
                  label=f"{r.name}, last {WINDOW} steps")
        axes.plot(steps, scale * np.cumsum(r.spent) / steps, color=colour, lw=0.8, ls="--",
                  label=f"{r.name}, since the beginning")
    asked, part = scale * runs[0].asked, scale * runs[0].controllable
    axes.axhline(asked, color="black", lw=0.8)
    axes.axhspan(asked - WINDOW_TOLERANCE * part, asked + WINDOW_TOLERANCE * part, color="0.92")
    axes.axvline(len(runs[0].spent) // 2, color="0.6", lw=0.8, ls=":")
    unit = "MFLOPs" if scale > 1 else "GFLOPs"
    axes.set(xlabel="step", ylabel=f"{unit} a step ({arguments.scope})",
             title=f"asked: {asked:g} {unit}; from the dotted line on: {arguments.shift}")
    axes.set_ylim(0, None)
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
