"""The policy node; with `sim:=true` the robot that it drives, with `record:=` a recorder, too."""

from __future__ import annotations

import re
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, LogInfo, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.parameter_descriptions import ParameterValue

from deer_ros import parameter_file
from deer_ros.resources import share

CAMERA = re.compile(r"/?camera/[^/]+/image")
# Node parameters that are launch arguments too. Left empty, params_file has the last word.
SWITCH = ["true", "false", "True", "False"]
OVERRIDES = {
    "model": (str, "model directory", None),
    "instruction": (str, "what the robot is to do", None),
    "device": (str, "auto, cpu, cuda or cuda:N", None),
    "autostart": (bool, "false: whoever manages lifecycles configures and activates the policy",
                  SWITCH),
    "dry_run": (bool, "true: everything runs, nothing is commanded", SWITCH),
    "image_transport": (str, "raw or compressed pictures", ["raw", "compressed"]),
}
PARAMETERS = {"image_transport": "image.transport"}


STATES = {
    "unconfigured": "no model is loaded",
    "inactive": "the model is loaded, and nothing moves",
    "active": "steps are made",
}
RESPAWN_DELAY_S = 2.0


def is_true(word: str) -> bool:
    return word.lower() == "true"


def generate_launch_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(
            name,
            default_value="",
            description=f"{meaning} (empty: as params_file says)",
            choices=None if choices is None else ["", *choices],
        )
        for name, (_kind, meaning, choices) in OVERRIDES.items()
    ]
    arguments += [
        DeclareLaunchArgument(
            "params_file",
            default_value=str(share("config", "deer.yaml")),
            description="parameters of the policy node",
        ),
        DeclareLaunchArgument("namespace", default_value="", description="of all nodes"),
        DeclareLaunchArgument(
            "remap",
            default_value="",
            description="topics that are called otherwise here, such as "
            "'camera/static/image:=/front/image_raw instruction:=/task'; of a camera's name, "
            "compressed pictures follow",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="",
            choices=["", *SWITCH],
            description="true: time from /clock; the simulated robot then waits for every action "
            "(empty: as params_file says, but false with the simulated robot)",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="of all nodes",
        ),
        DeclareLaunchArgument(
            "respawn",
            default_value="false",
            choices=SWITCH,
            description="true: start the policy again 2 s after it has ended; it then goes on by "
            "itself, if it starts by itself and its instruction is a parameter or latched",
        ),
        DeclareLaunchArgument(
            "sim",
            default_value="false",
            choices=SWITCH,
            description="true: start the simulated robot too and let a model drive it that was "
            "trained in simulation",
        ),
        DeclareLaunchArgument(
            "task",
            default_value="drawer-open",
            description="of the simulated robot, which publishes the task's instruction",
        ),
        DeclareLaunchArgument(
            "record",
            default_value="",
            description="folder of a new bag with everything that goes into the policy and comes "
            "out of it (empty: nothing is recorded)",
        ),
    ]
    return LaunchDescription([*arguments, OpaqueFunction(function=_nodes)])


def _told(policy: LifecycleNode) -> list[RegisterEventHandler]:
    """What becomes of the policy, in the launch's own log."""
    transitions = [
        RegisterEventHandler(OnStateTransition(
            target_lifecycle_node=policy,
            goal_state=state,
            entities=[LogInfo(msg=f"the policy is {state}: {meaning}")],
        ))
        for state, meaning in STATES.items()
    ]
    ended = OnProcessExit(
        target_action=policy,
        on_exit=[LogInfo(msg="the policy has ended; nothing commands the robot any more")],
    )
    return [*transitions, RegisterEventHandler(ended)]


def _parameter_file(path: str) -> Path:
    """Raises RuntimeError where there is none: launch only warns, and limits would be lost."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise RuntimeError(
            f"params_file is {path!r}, and there is no such file. Nothing is started, as the "
            "limits in it would not hold."
        )
    return file


def _remappings(rules: str) -> list[tuple[str, str]]:
    """Pairs of names. Raises RuntimeError for what is no rule."""
    pairs = []
    for rule in rules.split():
        name, separator, other = rule.partition(":=")
        if not (separator and name and other):
            raise RuntimeError(f"remap has {rule!r}; it must be from:=to, two names of topics.")
        pairs.append((name, other))
    # ROS takes a rule for one name alone, and compressed pictures have a name of their own. These
    # come last, as of two rules for a name the first counts.
    compressed = [(f"{name}/compressed", f"{other}/compressed")
                  for name, other in pairs if CAMERA.fullmatch(name)]
    return pairs + compressed


def _nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    params_file = _parameter_file(given("params_file"))
    sim, use_sim_time = is_true(given("sim")), is_true(given("use_sim_time"))
    # The simulated robot reads no params_file: it and the policy must agree on the clock.
    clock = {"use_sim_time": use_sim_time} if sim or given("use_sim_time") else {}
    overrides = clock | {
        PARAMETERS.get(name, name): is_true(given(name))
        if kind is bool
        else ParameterValue(given(name), value_type=kind)
        for name, (kind, _meaning, _choices) in OVERRIDES.items()
        if given(name)
    }
    if sim:
        overrides["allow_simulation_model"] = True
        # A drawn scene has no noise: where nothing moves, its pictures are the same.
        overrides["safety.frozen_image_timeout"] = 0.0
    common = {
        "package": "deer_ros",
        "namespace": given("namespace"),
        "output": "screen",
        "remappings": _remappings(given("remap")),
        "arguments": ["--ros-args", "--log-level", given("log_level")],
    }
    policy = LifecycleNode(
        executable="policy_node",
        name="deer",
        # Without any, no empty set of them is handed on: not every parser takes one.
        parameters=[str(params_file), *filter(None, [overrides])],
        respawn=is_true(given("respawn")),
        respawn_delay=RESPAWN_DELAY_S,
        **common,
    )
    nodes: list[LaunchDescriptionEntity] = [*_told(policy), policy]
    if sim:
        nodes.append(
            Node(
                executable="sim_node",
                name="simulated_robot",
                parameters=[{"lockstep": use_sim_time, "task": given("task")}],
                **common,
            )
        )
    if given("record"):
        own = {"folder": str(Path(given("record")).expanduser().absolute())}
        # How pictures come may stand where only the policy's parameters do.
        found = parameter_file.read(params_file, given("namespace")) | overrides
        if "image.transport" in found:
            own["image.transport"] = found["image.transport"]
        nodes.append(
            Node(
                executable="recorder_node",
                name="recorder",
                parameters=[str(params_file), clock | own],
                **common,
            )
        )
    return nodes
