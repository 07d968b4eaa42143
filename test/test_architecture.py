"""Who may import whom, from the bottom to the top; docs/architecture.md draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import deer_ros

SOURCES = next(Path(folder) for folder in deer_ros.__path__ if Path(folder, "model").is_dir())

MAY_IMPORT = {
    "observation": set(),
    "resources": set(),
    "parameter_file": set(),
    "unfinished": set(),
    "report": set(),
    "control": set(),
    "data": {"control", "resources", "unfinished"},
    "sim": {"data"},
    "model": set(),
    "budget": {"model"},
    "decision": {"model"},
    "exit_rule": {"budget", "model"},
    "checkpoint": {"budget", "model", "unfinished"},
}
MAY_IMPORT["inputs"] = {"model", "observation"}
MAY_IMPORT["measuring"] = {"budget", "inputs", *MAY_IMPORT["inputs"]}
MAY_IMPORT["depth"] = {"budget", "checkpoint", "decision", "model"}
MAY_IMPORT["pacing"] = {"budget", "decision", "exit_rule", "model"}
MAY_IMPORT["walk"] = {"budget", "decision", "exit_rule", "model"}
MAY_IMPORT["policy"] = {
    "budget", "checkpoint", "decision", "depth", "exit_rule", "inputs", "measuring", "model",
    "observation", "pacing", "resources", "unfinished", "walk",
}  # fmt: skip
MAY_IMPORT["training"] = {"policy", "data", "report", *MAY_IMPORT["policy"]}
MAY_IMPORT["stepping"] = {"control", "data", "parameter_file", "policy", *MAY_IMPORT["policy"]}
MAY_IMPORT["replay"] = {"report", "stepping", *MAY_IMPORT["stepping"]}
MAY_IMPORT["calibration"] = {"policy", "data", *MAY_IMPORT["policy"]}
MAY_IMPORT["evaluation"] = {"report", "policy", "sim", "data", *MAY_IMPORT["policy"]}
MAY_IMPORT["search"] = {"evaluation", *MAY_IMPORT["evaluation"]}
BELOW_THE_TOP = set(MAY_IMPORT)
# One command speaks to a running node, and imports what does so only when it is run.
MAY_IMPORT["cli"] = BELOW_THE_TOP | {"nodes"}
SPEAKS_TO_NODES = {"set.py": {"deer_ros.nodes.set_budgets.set_parameters"}}
MAY_IMPORT["nodes"] = BELOW_THE_TOP | {"action", "msg"}

ROS_PACKAGES = {
    "action_msgs", "builtin_interfaces", "cv_bridge", "diagnostic_msgs", "geometry_msgs", "launch",
    "launch_ros", "lifecycle_msgs", "rcl_interfaces", "rclpy", "rosgraph_msgs", "sensor_msgs",
    "std_msgs", "std_srvs",
}  # fmt: skip


def modules(part: str) -> list[Path]:
    folder = SOURCES / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported(module: Path) -> Iterator[str]:
    """The full names of what a module imports, wherever in it. Relative imports are not in use."""
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def test_every_part_of_the_package_has_its_place():
    found = {path.stem for path in SOURCES.glob("*.py")} - {"__init__"}
    found |= {path.parent.name for path in SOURCES.glob("*/__init__.py")} - {"action", "msg"}
    assert found == set(MAY_IMPORT)


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_a_part_imports_only_what_lies_below_it(part):
    for module in modules(part):
        names = [name.split(".") for name in imported(module)]
        used = {name[1] for name in names if name[0] == "deer_ros"} - {part}
        assert used <= MAY_IMPORT[part], f"{module} imports {sorted(used - MAY_IMPORT[part])}"


def test_budget_uses_of_the_model_its_configuration_alone():
    allowed = ("deer_ros.model.config.", "deer_ros.model.schema.")
    for module in modules("budget"):
        names = {name for name in imported(module) if name.startswith("deer_ros.model")}
        assert all(name.startswith(allowed) for name in names), (module, names)


def test_of_the_nodes_a_command_uses_one_and_only_deer_set_does():
    for module in modules("cli"):
        used = {name for name in imported(module) if name.startswith("deer_ros.nodes")}
        assert used == SPEAKS_TO_NODES.get(module.name, set()), module


@pytest.mark.parametrize("part", sorted(set(MAY_IMPORT) - {"nodes"}))
def test_only_nodes_import_ros(part):
    for module in modules(part):
        used = {name.split(".")[0] for name in imported(module)} & ROS_PACKAGES
        assert not used, f"{module} imports {sorted(used)}"


def run_python(program: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=300
    )


def test_all_but_the_nodes_can_be_imported_where_rclpy_cannot():
    names = [
        ".".join(("deer_ros", *module.relative_to(SOURCES).with_suffix("").parts))
        for part in sorted(BELOW_THE_TOP | {"cli"})
        for module in modules(part)
        if module.name != "__main__.py"
    ]
    done = run_python(
        "import importlib, sys\n"
        "for name in ('rclpy', 'deer_ros.msg'):\n"
        "    sys.modules[name] = None  # an import of it raises\n"
        f"for name in {names}:\n"
        "    importlib.import_module(name)\n"
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "module", ["deer_ros", "deer_ros.cli.main", "deer_ros.control", "deer_ros.budget.solution"]
)
def test_what_needs_no_torch_does_not_wait_for_it(module):
    done = run_python(f"import sys, {module}; print('torch' in sys.modules)")
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_the_package_exports_its_policy_and_no_name_that_is_not_there():
    from deer_ros import DeerPolicy, Observation

    assert DeerPolicy is sys.modules["deer_ros.policy"].DeerPolicy
    assert Observation is sys.modules["deer_ros.observation"].Observation
    assert {"DeerPolicy", "Observation"} <= set(dir(deer_ros))
    with pytest.raises(AttributeError, match="no attribute 'Policy'"):
        deer_ros.Policy  # noqa: B018
