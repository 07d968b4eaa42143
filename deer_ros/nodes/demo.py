"""`demo`: the policy node drives the simulated robot through episodes, and a table tells how.

Both run as processes of their own in a ROS domain of their own, so that a running robot is not
disturbed.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import rclpy
from rclpy.signals import SignalHandlerOptions

from deer_ros.model.config import DeerConfig
from deer_ros.nodes.children import ChildDied, NodeProcess
from deer_ros.nodes.domain import isolate, reserved_domain
from deer_ros.nodes.episode_runner import EpisodeRunner, RunFailed
from deer_ros.report.episodes import PicturedEpisode, summarise
from deer_ros.report.locks import locked
from deer_ros.report.progress import track
from deer_ros.report.run_folder import results, write_run
from deer_ros.report.tables import console, task_table
from deer_ros.resources import bundled_model
from deer_ros.sim.tasks import EVALUATION_SEED_START, find_task
from deer_ros.stepping.settings import ALWAYS, NEVER

DEFAULT_TASKS = ("push", "pick-place", "drawer-open", "window-close", "faucet-open", "faucet-close",
                 "ball-next-left", "ball-owned")
DEFAULT_EPISODES = 24
FAILED, USAGE_ERROR, INTERRUPTED = 1, 2, 130


def main() -> int:
    """Exit code 0, 1 for a failed run or too little success, 2 for wrong arguments."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # A terminal that closes; under nohup, that is no reason to end.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    try:
        return _run(_checked(_parser().parse_args()))
    except (ValueError, OSError) as error:
        return _end(error, USAGE_ERROR)
    except (ChildDied, RunFailed) as error:
        return _end(error, FAILED)
    except KeyboardInterrupt:
        return _end("interrupted", INTERRUPTED)


def _end(sentence: object, code: int) -> int:
    print(f"demo: {sentence}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    add = parser.add_argument
    add("--tasks", nargs="+", metavar="TASK", default=list(DEFAULT_TASKS),
        help=f"default: {' '.join(DEFAULT_TASKS)}")
    add("--episodes", type=int, default=DEFAULT_EPISODES, metavar="N",
        help="in all, spread over the tasks (default: %(default)s)")
    add("--seed", type=int, default=EVALUATION_SEED_START,
        help="of each task's first episode (default: %(default)s, the first of evaluation)")
    add("--model", type=Path, metavar="FOLDER", help="default: the bundled model")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--thresholds", type=float, nargs="+", metavar="T",
                       help="one per exit (default: the model's own)")
    depth.add_argument("--full-depth", action="store_true", help="never exit early")
    add("--real-time", action="store_true",
        help="the robot moves on the wall clock and does not wait for the policy")
    add("--out", type=Path, default=Path("demo_output"), metavar="FOLDER",
        help="for contact sheet, results and logs (default: %(default)s)")
    add("--min-success", type=float, default=0.0, metavar="RATE",
        help="exit code 1 below this success rate, 0 to 1 (default: %(default)s)")
    add("--domain", type=int, metavar="ID", help="ROS domain (default: one that is free)")
    add("--json", action="store_true", help="print the results as JSON instead of the table")
    return parser


def _checked(arguments: argparse.Namespace) -> argparse.Namespace:
    for task in arguments.tasks:
        find_task(task)
    if arguments.episodes < 1 or arguments.seed < 0:
        raise ValueError("--episodes must be at least 1 and --seed at least 0")
    if not 0 <= arguments.min_success <= 1:
        raise ValueError(f"--min-success is {arguments.min_success}; it must be from 0 to 1")
    if arguments.thresholds:
        if any(map(math.isnan, arguments.thresholds)):
            raise ValueError("--thresholds must be numbers, inf among them, but not nan")
        arguments.thresholds = [min(max(t, NEVER), ALWAYS) for t in arguments.thresholds]
    if arguments.domain is not None and not 0 <= arguments.domain <= 232:
        raise ValueError(f"--domain is {arguments.domain}; ROS domains are 0 to 232")
    arguments.model = arguments.model or bundled_model()
    return arguments


def _run(arguments: argparse.Namespace) -> int:
    config = DeerConfig.load(arguments.model / "config.json")
    with ExitStack() as stack:
        # Logs and the nodes' parameters are there: two demos would start each other's nodes.
        stack.enter_context(locked(arguments.out, "runs a demo"))
        domain = arguments.domain
        isolate(stack.enter_context(reserved_domain()) if domain is None else domain)
        children = [stack.enter_context(child) for child in _children(arguments, config)]
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        stack.callback(rclpy.shutdown)
        node = rclpy.create_node("demo")
        stack.callback(node.destroy_node)
        runner = EpisodeRunner(node, not arguments.real_time,
                               lambda: [child.check() for child in children])
        try:
            episodes = _episodes(arguments, runner)
        except RunFailed as error:
            raise RunFailed("\n".join([str(error), *(c.last_words() for c in children)])) from None
    return _report(arguments, config, episodes)


def _children(arguments: argparse.Namespace, config: DeerConfig) -> list[NodeProcess]:
    lockstep = not arguments.real_time
    policy = {
        "model": str(arguments.model.resolve()),
        "allow_simulation_model": True,
        "use_sim_time": lockstep,
        "autostart": False,
        # Without a budget every step goes as deep as it can.
        "exit.policy": "budget" if arguments.full_depth else "fixed",
        # The simulator ends the episodes. A policy that did would wait to be told to go on.
        "episode.max_duration": 86400.0,
        # A drawn scene has no noise: where nothing moves, its pictures are the same.
        "safety.frozen_image_timeout": 0.0,
    }
    if arguments.thresholds:
        policy["exit.thresholds"] = arguments.thresholds
    simulator = {
        "lockstep": lockstep,
        "task": arguments.tasks[0],
        "seed": arguments.seed,
        "max_episode_steps": config.max_episode_steps,
    }
    return [NodeProcess("policy_node", policy, arguments.out),
            NodeProcess("sim_node", simulator, arguments.out)]


def _episodes(arguments: argparse.Namespace, runner: EpisodeRunner) -> list[PicturedEpisode]:
    wanted = scenes(arguments.tasks, arguments.episodes, arguments.seed)
    runner.start()
    return list(track((runner.run(task, seed) for task, seed in wanted), len(wanted),
                      lambda episode: episode.record.describe()))


def scenes(tasks: list[str], episodes: int, first_seed: int) -> list[tuple[str, int]]:
    """(task, seed) of every episode: as evenly over the tasks as can be, seeds counted up."""
    even, more = divmod(episodes, len(tasks))
    return [(task, first_seed + number) for index, task in enumerate(tasks)
            for number in range(even + (index < more))]


def _report(arguments: argparse.Namespace, config: DeerConfig,
            episodes: list[PicturedEpisode]) -> int:
    layers = config.exit_layers[-1]
    settings = {name: getattr(arguments, name) for name in
                ("tasks", "episodes", "seed", "thresholds", "full_depth", "real_time")}
    settings |= {"model": str(arguments.model), "layers": layers}
    write_run(arguments.out, episodes, settings, layers)
    summaries = summarise([episode.record for episode in episodes])
    if arguments.json:
        print(json.dumps(results(episodes, settings)))
    else:
        out = console()
        out.print(task_table("Simulated robot, driven over ROS 2", summaries, layers))
        out.print("GFLOPs: 1e9 multiply-adds, of the decoder layers (llm) and of everything (all). "
                  "model ms: the policy's own time for a step."
                  + (" stamp to action: from the newer picture's stamp to the action's." if
                     arguments.real_time else ""))
        out.print(f"Pictures and numbers: {arguments.out}/contact_sheet.png, results.json")
    success_rate = summaries[-1].success_rate
    if success_rate < arguments.min_success:
        return _end(f"success rate {success_rate:.2f} is below --min-success "
                    f"{arguments.min_success}", FAILED)
    return 0
