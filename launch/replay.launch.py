"""A recorded bag, played into the running policy node on the bag's own clock.

`ros2 bag play` plays it where rosbag2 is installed, this package's player elsewhere.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from launch import Action, LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.events.process import ProcessExited
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.event_handlers import OnStateTransition

from deer_ros.resources import share

SWITCH = ["true", "false", "True", "False"]
ROSBAG2, OWN = "rosbag2", "deer_ros"
CLOCK_RATE_HZ = 100
# For the last step, and for the recorder to hear of it.
AFTER_THE_END_S = 2.0

ARGUMENTS = {
    "bag": (None, "the bag: its folder, or one of its files", None),
    "model": ("", "model directory (empty: as params_file says)", None),
    "rate": ("1.0", "speed: 0.5 takes twice as long as the recording", None),
    "loop": ("false", "true: begin again at the end", SWITCH),
    "start_paused": ("false", "true: wait to be told to go on, by the player's service", SWITCH),
    "params_file": (str(share("config", "deer.yaml")), "parameters of the policy node", None),
    "instruction": ("", "to be obeyed until the bag says another one", None),
    "device": ("", "auto, cpu, cuda or cuda:N (empty: as params_file says)", None),
    "dry_run": ("true", "false: commands are sent, and move whatever listens to them", SWITCH),
    "image_transport": ("", "raw or compressed (empty: whichever is in the bag)",
                        ["", "raw", "compressed"]),
    "remap": ("", "topics that are called otherwise in the bag, such as "
              "'camera/static/image:=/front/image_raw instruction:=/task'", None),
    "namespace": ("", "of the policy node", None),
    "record": ("", "folder of a new bag with what the policy answers (empty: none)", None),
    "player": ("auto", f"{ROSBAG2}: ros2 bag play; {OWN}: this package's; auto: the first that "
               "there is", ["auto", ROSBAG2, OWN]),
    "log_level": ("info", "of all nodes", ["debug", "info", "warn", "error", "fatal"]),
}  # fmt: skip
PASSED_ON = ("model", "params_file", "instruction", "device", "dry_run", "namespace", "record",
             "log_level")  # fmt: skip


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name, default_value=default, description=meaning, choices=choices)
        for name, (default, meaning, choices) in ARGUMENTS.items()
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_entities)])


def _entities(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    given = {name: LaunchConfiguration(name).perform(context) for name in ARGUMENTS}
    bag = Path(given["bag"]).expanduser().absolute()
    played = _played(bag, given)
    policy = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(share("launch", "deer.launch.py"))),
        launch_arguments=[
            *((name, given[name]) for name in PASSED_ON),
            ("image_transport", played["transport"]),
            ("remap", " ".join(f"{name}:={topic}" for name, topic in played["remap"].items())),
            ("use_sim_time", "true"),
        ],
    )
    make_player = _rosbag2 if _uses_rosbag2(given["player"]) else _own
    player = make_player(bag, given, list(played["renamed"].items()))
    ends = OnProcessExit(
        target_action=player, on_exit=_shut_down("the bag has ended", AFTER_THE_END_S)
    )
    # Without it, the bag would be played to nobody.
    gone = OnProcessExit(target_action=_is_policy, on_exit=_shut_down("the policy has ended"))
    start = player
    if not isinstance(player, Node):
        start = RegisterEventHandler(OnStateTransition(goal_state="active", entities=[player]))
    return [
        RegisterEventHandler(ends),
        RegisterEventHandler(gone),
        start,
        policy,
    ]


def _shut_down(
    reason: str, delay_s: float = 0.0
) -> Callable[[ProcessExited, LaunchContext], list[Action]]:
    """What follows from a process's end: nothing where all ends already, as launch shuts down but
    once."""

    def follows(_event: ProcessExited, context: LaunchContext) -> list[Action]:
        if context.is_shutdown:
            return []
        end = EmitEvent(event=Shutdown(reason=reason))
        return [TimerAction(period=delay_s, actions=[end])] if delay_s else [end]

    return follows


def _is_policy(action: Action) -> bool:
    """It is started by the other launch file."""
    return isinstance(action, Node) and action.node_executable == "policy_node"


def _played(bag: Path, given: dict[str, str]) -> dict[str, Any]:
    """What is in the bag, by a program in the nodes' Python: this one may lack its packages.

    Raises RuntimeError with its sentence.
    """
    rules = [word for rule in given["remap"].split() for word in ("--remap", rule)]
    answer = subprocess.run(
        ["/usr/bin/env", "python3", "-m", "deer_ros.replay.played", str(bag), *rules,
         f"--transport={given['image_transport']}", f"--namespace={given['namespace']}"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if answer.returncode:
        raise RuntimeError(answer.stderr.strip())
    return json.loads(answer.stdout)


def _uses_rosbag2(player: str) -> bool:
    if player == "auto":
        return find_spec("ros2bag") is not None and find_spec("rosbag2_py") is not None
    return player == ROSBAG2


def _own(bag: Path, given: dict[str, str], renamed: list[tuple[str, str]]) -> Node:
    return Node(
        package="deer_ros",
        executable="player_node",
        name="player",
        output="screen",
        arguments=["--ros-args", "--log-level", given["log_level"]],
        remappings=renamed,
        parameters=[
            {
                "bag": str(bag),
                "rate": float(given["rate"]),
                "loop": given["loop"].lower() == "true",
                "start_paused": given["start_paused"].lower() == "true",
                "clock_rate": float(CLOCK_RATE_HZ),
                "wait_for": f"{given['namespace']}/deer".lstrip("/"),
            }
        ],
    )


def _rosbag2(
    bag: Path, given: dict[str, str], renamed: list[tuple[str, str]]
) -> ExecuteProcess:
    switches = [
        f"--{name.replace('_', '-')}"
        for name in ("loop", "start_paused")
        if given[name].lower() == "true"
    ]
    return ExecuteProcess(
        cmd=["ros2", "bag", "play", str(bag), "--clock", str(CLOCK_RATE_HZ), "--rate",
             given["rate"], *switches, "--remap",
             *(f"{name}:={other}" for name, other in renamed)],
        output="screen",
    )  # fmt: skip
