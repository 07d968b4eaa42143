"""What steps cost against what was asked, and what succeeds, for one budget after another.

Closed loop in the simulator. Under every budget of average GFLOPs the policy works through the same
tasks and seeds: by the solved thresholds alone and with tracking, each with the solvers `optimal`
and `exponential`. A budget is set once, and its episodes follow each other as on a robot. Then two
of the budgets are exchanged half-way through episodes. Needs a model with a calibration.

    python benchmarks/budget_sweep.py
    python benchmarks/budget_sweep.py --processes 2 --out sweep.json --picture sweep.png
    python benchmarks/budget_sweep.py --read sweep.json --picture sweep.svg
"""
from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from deer_ros import Budget, DeerPolicy
from deer_ros.budget.cost import CostModel
from deer_ros.evaluation.episode import Episode, mean_per_step, run_episode
from deer_ros.evaluation.metaworld import MetaWorld
from deer_ros.evaluation.processes import run_jobs
from deer_ros.evaluation.statistics import mean_success
from deer_ros.report.files import write_json
from deer_ros.report.progress import track
from deer_ros.report.tables import console, number, table
from deer_ros.sim.tasks import DEMONSTRATION_TASKS, EVALUATION_SEED_START

BUDGETS = (0.007, 0.010, 0.014, 0.018, 0.022)
SETTINGS = (("optimal", False), ("optimal", True), ("exponential", False), ("exponential", True))
COLOURS = {"optimal": "#2b6cb0", "exponential": "#dd6b20"}
BESIDE = 10  # steps beside a change that are averaged
TOGETHER = 5  # steps that are averaged in the picture


@dataclass(frozen=True)
class Held:
    """A budget that stays. asked: None runs to full depth. tasks: by name, each with all seeds."""

    solver: str
    tracking: bool
    asked: float | None
    scope: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]

    def run(self, policy: DeerPolicy, environment: MetaWorld) -> dict:
        """Means over all steps, and success with its interval."""
        policy.set_budget(Budget(average_gflops=self.asked or 1e9, scope=self.scope,
                                 solver=self.solver, tracking=self.tracking))
        episodes: dict[str, list[Episode]] = {task: [] for task in self.tasks}
        controllable = []
        for seed in self.seeds:
            for task in self.tasks:
                environment.reset(task, seed, task)
                low, high = ends(policy, environment.instruction, self.scope)
                episode = run_episode(policy, environment, None, policy.config.max_episode_steps)
                episodes[task].append(episode)
                controllable += [high - low] * episode.steps
        every = [episode for of_task in episodes.values() for episode in of_task]
        spent = mean_per_step(every, f"mean_{self.scope}_gflops")
        part = float(np.mean(controllable))
        success = mean_success([np.array([e.success for e in of]) for of in episodes.values()])
        return {
            "solver": self.solver, "tracking": self.tracking, "asked_gflops": self.asked,
            "spent_gflops": spent, "controllable_gflops": part,
            "error": None if self.asked is None else (spent - self.asked) / part,
            "steps": sum(e.steps for e in every), "episodes": len(every),
            "mean_exit_layer": mean_per_step(every, "mean_exit_layer"),
            "success": asdict(success),
            "successes": {task: sum(e.success for e in of) for task, of in episodes.items()},
        }


@dataclass(frozen=True)
class Exchanged:
    """Two budgets that take turns, exchanged half-way through every episode.

    Episodes do not end with success. Each direction has every other one of them.
    """

    tracking: bool
    budgets: tuple[float, float]
    scope: str
    tasks: tuple[str, ...]
    episodes: int

    def run(self, policy: DeerPolicy, environment: MetaWorld) -> dict:
        """Mean cost of every step number in both directions, and how long a change took."""
        one, other = (Budget(average_gflops=asked, scope=self.scope, tracking=self.tracking)
                      for asked in self.budgets)
        steps = policy.config.max_episode_steps
        spent, took_ms = np.zeros((self.episodes, steps)), []
        policy.set_budget(one)
        for episode in range(self.episodes):
            task = self.tasks[episode // 2 % len(self.tasks)]
            environment.reset(task, EVALUATION_SEED_START + episode // 2, task)
            policy.reset()
            for place in range(steps):
                if place == steps // 2:
                    one, other = other, one
                    started_s = time.perf_counter()
                    policy.set_budget(one)
                    took_ms.append(1e3 * (time.perf_counter() - started_s))
                step = policy.step(environment.observation(), environment.instruction)
                environment.step(step.action, step.gripper)
                spent[episode, place] = getattr(step.cost, f"{self.scope}_gflops")
        return {
            "tracking": self.tracking, "budgets": list(self.budgets), "episodes": self.episodes,
            "there": spent[::2].mean(axis=0).tolist(), "back": spent[1::2].mean(axis=0).tolist(),
            "set_budget_ms": {"p50": float(np.median(took_ms)), "worst": max(took_ms)},
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model directory (default: the bundled model)")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS, metavar="GFLOPS")
    parser.add_argument("--scope", choices=("llm", "step"), default="llm")
    parser.add_argument("--tasks", default=",".join(DEMONSTRATION_TASKS),
                        help="comma-separated (default: those of the demonstrations)")
    parser.add_argument("--episodes", type=int, default=4, help="per task, budget and setting")
    parser.add_argument("--exchanges", type=int, default=20,
                        help="episodes with a change half-way, per setting")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, metavar="FILE", help="keep the figures as JSON")
    parser.add_argument("--read", type=Path, metavar="FILE",
                        help="measure nothing, take the figures that --out kept")
    parser.add_argument("--picture", type=Path, help="draw to this file: .png, .svg or .pdf")
    arguments = parser.parse_args()
    if arguments.episodes < 1 or arguments.exchanges < 2 or len(arguments.budgets) < 2:
        parser.error("--episodes must be at least 1, --exchanges and the number of budgets 2.")
    try:
        figures = json.loads(arguments.read.read_text()) if arguments.read else measure(arguments)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if arguments.out:
        write_json(arguments.out, figures)
    print_tables(figures)
    if arguments.picture:
        draw(figures, arguments.picture)
    return 0


def measure(arguments: argparse.Namespace) -> dict:
    """All figures, JSON-ready."""
    tasks, scope = tuple(arguments.tasks.split(",")), arguments.scope
    seeds = tuple(range(EVALUATION_SEED_START, EVALUATION_SEED_START + arguments.episodes))
    budgets = sorted(arguments.budgets)
    held = [Held(solver, tracking, asked, scope, tasks, seeds)
            for asked in budgets for solver, tracking in SETTINGS]
    held.append(Held("optimal", True, None, scope, tasks, seeds))
    inner = len(budgets) // 4
    far = budgets[-1 - inner], budgets[inner]
    exchanged = [Exchanged(tracking, far, scope, tasks, arguments.exchanges)
                 for tracking in (False, True)]
    jobs = list(enumerate([*held, *exchanged]))
    done = track(run_jobs(start, (arguments.model,), jobs, arguments.processes), len(jobs),
                 lambda result: f"{result[1]['seconds']:.0f} s")
    results = [result for _, result in sorted(done, key=lambda pair: pair[0])]
    return {"scope": scope, "tasks": tasks, "held": results[:len(held)],
            "exchanged": results[len(held):]}


def start(model: str | None) -> Callable[[tuple[int, Held | Exchanged]], tuple[int, dict]]:
    """Load a policy and the simulator; what runs a numbered job."""
    torch.set_num_threads(1)
    policy = DeerPolicy.from_pretrained(model, device="cpu")
    environment = MetaWorld(policy.config)

    def run(numbered: tuple[int, Held | Exchanged]) -> tuple[int, dict]:
        place, job = numbered
        started_s = time.perf_counter()
        figures = job.run(policy, environment)
        return place, {**figures, "seconds": time.perf_counter() - started_s}

    return run


def ends(policy: DeerPolicy, instruction: str, scope: str) -> tuple[float, float]:
    """GFLOPs of a step with that prompt: the fixed part, and full depth."""
    costs = CostModel(policy.config, len(policy.prompts.encode(instruction))).exit_gflops(scope)
    return float(costs[0]), float(costs[-1])


def print_tables(figures: dict) -> None:
    scale, unit = unit_of(figures)
    rows = [(
        "full depth" if r["asked_gflops"] is None else number(scale * r["asked_gflops"]),
        "" if r["asked_gflops"] is None else name_of(r),
        number(scale * r["spent_gflops"]),
        "-" if r["error"] is None else f"{100 * r['error']:+.1f}",
        number(r["mean_exit_layer"], 2),
        f"{100 * r['success']['estimate']:.1f}",
        f"{100 * r['success']['low']:.0f} to {100 * r['success']['high']:.0f}",
        str(r["steps"]),
    ) for r in figures["held"]]
    out, first = console(), figures["held"][0]
    out.print(table(
        f"{unit} a step, scope {figures['scope']}; {first['episodes']} episodes a row, "
        f"{len(figures['tasks'])} tasks; errors in % of the controllable part",
        ("asked", "", "spent", "error, %", "mean exit\nlayer", "success,\n%", "95 %\ninterval",
         "steps"), rows))
    changes = []
    for r in figures["exchanged"]:
        for way, budgets in (("there", r["budgets"]), ("back", r["budgets"][::-1])):
            spent = scale * np.array(r[way])
            half = len(spent) // 2
            changes.append((
                f"{scale * budgets[0]:g} to {scale * budgets[1]:g}",
                "tracking" if r["tracking"] else "static",
                *(number(float(part.mean())) for part in (
                    spent[half - BESIDE:half], spent[half:half + 1],
                    spent[half:half + BESIDE], spent[half:])),
                f"{r['set_budget_ms']['p50']:.1f} ({r['set_budget_ms']['worst']:.1f})",
            ))
    episodes = figures["exchanged"][0]["episodes"] // 2
    out.print(table(
        f"{unit} a step, budget exchanged half-way; means over {episodes} episodes",
        ("asked", "", f"{BESIDE} steps\nbefore", "first\nstep", f"first {BESIDE}\nsteps",
         "all steps\nafter", "set_budget\nms p50 (worst)"), changes))


def name_of(result: dict) -> str:
    """A setting in words."""
    return f"{result['solver']}, {'tracking' if result['tracking'] else 'static'}"


def unit_of(figures: dict) -> tuple[float, str]:
    """Small models count in mega."""
    largest = max(r["spent_gflops"] for r in figures["held"])
    return (1e3, "MFLOPs") if largest < 0.1 else (1.0, "GFLOPs")


def draw(figures: dict, file: Path) -> None:
    """Spent against asked, success against spent, and what a change of the budget does."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.9), layout="constrained")
    spending, succeeding, changing = figure.subplots(1, 3)
    scale, unit = unit_of(figures)
    held = [r for r in figures["held"] if r["asked_gflops"] is not None]
    for solver, tracking in SETTINGS:
        mine = [r for r in held if (r["solver"], r["tracking"]) == (solver, tracking)]
        draw_setting(spending, succeeding, mine, scale)
    spending.axhline(0, color="black", lw=0.8, zorder=0)
    spending.set(xlabel=f"asked, {unit} a step ({figures['scope']})",
                 ylabel="spent beyond asked,\n% of the controllable part")
    whole = figures["held"][-1]
    draw_interval(succeeding, [whole], scale, 0.0, color="black", fmt="x", label="full depth")
    succeeding.set(xlabel=f"spent, {unit} a step", ylabel="success, %")
    figure.legend(*succeeding.get_legend_handles_labels(), loc="outside lower left", ncols=5,
                  frameon=False, fontsize=8)
    draw_change(changing, figures["exchanged"], scale, unit)
    for axes in (spending, succeeding, changing):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def draw_setting(spending, succeeding, mine: Sequence[dict], scale: float) -> None:
    """One solver, with or without tracking."""
    first = mine[0]
    style = {
        "color": COLOURS[first["solver"]], "marker": "o", "ms": 5, "lw": 1,
        "ls": "-" if first["tracking"] else "--",
        "mfc": None if first["tracking"] else "white", "label": name_of(first),
    }
    spending.plot([scale * r["asked_gflops"] for r in mine],
                  [100 * r["error"] for r in mine], **style)
    # Beside each other, as the intervals would hide each other otherwise.
    aside = 0.12 * (SETTINGS.index((first["solver"], first["tracking"])) - 1.5)
    draw_interval(succeeding, mine, scale, aside, **style)


def draw_interval(axes, results: Sequence[dict], scale: float, aside: float, **style) -> None:
    """Success with its interval over what was spent."""
    success = [{k: 100 * v for k, v in r["success"].items()} for r in results]
    axes.errorbar(
        [scale * r["spent_gflops"] + aside for r in results],
        [s["estimate"] for s in success],
        yerr=[[s["estimate"] - s["low"] for s in success],
              [s["high"] - s["estimate"] for s in success]],
        elinewidth=0.6, **style,
    )


def draw_change(axes, exchanged: Sequence[dict], scale: float, unit: str) -> None:
    """Mean cost of every few steps, before and after the change."""
    half = len(exchanged[0]["there"]) // 2
    edges = np.arange(half % TOGETHER, 2 * half + 1, TOGETHER)
    for r in exchanged:
        for way, colour, budgets in (("there", "#2f855a", r["budgets"]),
                                     ("back", "#6b46c1", r["budgets"][::-1])):
            spent = [scale * float(np.mean(r[way][a:b])) for a, b in zip(edges, edges[1:])]
            axes.stairs([scale * budget for budget in budgets], [0, half, 2 * half],
                        baseline=None, color=colour, lw=4, alpha=0.2)
            axes.stairs(spent, edges, baseline=None, color=colour, lw=1.2,
                        ls="-" if r["tracking"] else "--",
                        label="tracking" if r["tracking"] else "static")
    axes.axvline(half, color="0.6", lw=0.8, ls=":")
    episodes = exchanged[0]["episodes"] // 2
    axes.set(xlabel=f"step (broad lines: asked;\nmeans of {TOGETHER} steps, {episodes} episodes)",
             ylabel=f"{unit} a step")
    axes.set_ylim(0, None)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::2], labels[::2], frameon=False, fontsize=8, loc="lower right")


if __name__ == "__main__":
    sys.exit(main())
