"""The launch files, read as text: also where `launch` is not installed."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from deer_ros.resources import share
from deer_ros.stepping.settings import ROWS

FOLDER = share("launch")
FILES = sorted(path.name for path in FOLDER.glob("*.launch.py"))


def tree(name: str) -> ast.Module:
    return ast.parse((FOLDER / name).read_text(encoding="utf-8"))


def constant(module: ast.Module, name: str) -> dict:
    """A dictionary at the top of a file, with what is computed left out (None)."""
    value = next(node.value for node in module.body if isinstance(node, ast.Assign)
                 and getattr(node.targets[0], "id", None) == name)
    return {key.value: [item.value if isinstance(item, ast.Constant) else None
                        for item in item.elts]
            for key, item in zip(value.keys, value.values)}


def declared(module: ast.Module) -> dict[str, str | None]:
    """Arguments that are declared one by one, with their defaults; None for a computed one."""
    found = {}
    for node in ast.walk(module):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "DeclareLaunchArgument":
            values = {word.arg: word.value for word in node.keywords}
            if isinstance(node.args[0], ast.Constant):
                default = values["default_value"]
                found[node.args[0].value] = getattr(default, "value", None)
    return found


def test_these_are_all_launch_files():
    assert FILES == ["deer.launch.py", "replay.launch.py"]


def test_the_defaults_start_the_policy_alone_and_leave_the_rest_to_the_parameter_file():
    assert declared(tree("deer.launch.py")) == {
        "params_file": None, "namespace": "", "remap": "", "use_sim_time": "",
        "log_level": "info", "respawn": "false", "sim": "false",
        "task": "drawer-open", "record": "",
    }  # fmt: skip


def test_a_replay_moves_nothing_unless_it_is_told_to():
    defaults = {name: values[0] for name, values in
                constant(tree("replay.launch.py"), "ARGUMENTS").items()}
    assert defaults.pop("bag") is None, "there is no default for it"
    assert (defaults["dry_run"], defaults["rate"], defaults["loop"]) == ("true", "1.0", "false")


def test_a_replay_ends_with_the_bag_and_with_the_policy():
    reasons = {node.args[0].value for node in ast.walk(tree("replay.launch.py"))
               if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_shut_down"}
    assert reasons == {"the bag has ended", "the policy has ended"}


def test_what_overrides_the_parameter_file_are_parameters_of_the_node():
    names = set(constant(tree("deer.launch.py"), "OVERRIDES")) - {"image_transport"}
    assert names and names <= set(ROWS)


@pytest.mark.parametrize("name", FILES)
def test_every_executable_that_is_started_exists(name):
    scripts = {path.name for path in Path(__file__).parents[1].joinpath("scripts").iterdir()}
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.keyword) and node.arg == "executable" and isinstance(
                node.value, ast.Constant):
            assert node.value.value in scripts


def test_the_parameter_file_does_not_let_a_model_from_simulation_move_a_robot():
    values = yaml.safe_load(share("config", "deer.yaml").read_text())["/**"]["ros__parameters"]
    assert values["allow_simulation_model"] is False
