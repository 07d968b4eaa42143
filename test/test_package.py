"""What makes the folder a package: build files, parameter file, installed files, executables."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from packaging.requirements import Requirement

from deer_ros import resources
from deer_ros.stepping.settings import ROWS
from deer_ros.stepping.table import LIVE

CHECKOUT = Path(__file__).parents[1]
EXECUTABLES = ("policy_node", "sim_node", "player_node", "recorder_node", "demo", "deer")
NODES = EXECUTABLES[:-1]
# Import names of what apt packages bring.
APT_KEYS = {"cv2": "python3-opencv", "matplotlib": "python3-matplotlib", "numpy": "python3-numpy",
            "PIL": "python3-pil", "yaml": "python3-yaml",
            "huggingface_hub": "huggingface-hub"}  # fmt: skip
PIP_NAMES = {"cv2": "opencv-python-headless", "PIL": "pillow", "yaml": "pyyaml",
             "cv_bridge": "cv-bridge", "huggingface_hub": "huggingface-hub"}  # fmt: skip
NO_ROS = "import sys; sys.modules['rclpy'] = None  # an import of it raises\n"


def run(*command: str | Path, **options) -> subprocess.CompletedProcess:
    options = {"capture_output": True, "text": True, "timeout": 300, **options}
    return subprocess.run([str(part) for part in command], **options)


# The parameter file


def parameter_lines() -> dict[str, str]:
    """The comment of each parameter in config/deer.yaml, by name."""
    lines = {}
    for line in resources.share("config", "deer.yaml").read_text().splitlines():
        match = re.fullmatch(r"    (?:# )?([a-z_0-9.]+): (?:.*?# |one per exit)(.*)", line)
        if match:
            lines[match[1]] = match[2]
    return lines


def test_the_parameter_file_holds_every_parameter_with_its_default():
    content = yaml.safe_load(resources.share("config", "deer.yaml").read_text())
    assert list(content) == ["/**"]
    written = content["/**"]["ros__parameters"]
    defaults = {
        name: list(row.default) if row.kind is tuple else row.default
        for name, row in ROWS.items()
        if name != "exit.thresholds"  # as many as the model has exits
    }
    assert written == defaults
    # An int would declare the parameter with another type than its default has.
    assert {name: type(value) for name, value in written.items()} == {
        name: type(default) for name, default in defaults.items()
    }


@pytest.mark.parametrize("name", ROWS)
def test_the_parameter_file_says_unit_and_whether_it_may_be_set_while_running(name):
    comment = parameter_lines()[name]
    assert ("[live]" in comment) == (ROWS[name].change == LIVE)
    assert ROWS[name].unit in comment


# What is declared against what is used


def imports(folder: str) -> set[str]:
    """Top-level names of what is imported below a folder of the package, others than its own."""
    names = set()
    for source in (CHECKOUT / "deer_ros" / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"deer_ros"}


def required(*files: str) -> set[str]:
    """Names of the packages that requirement files ask for."""
    lines = [line for file in files
             for line in (CHECKOUT / "requirements" / file).read_text().splitlines()]  # fmt: skip
    lines = [line.split("#")[0].strip() for line in lines]
    return {Requirement(line).name for line in lines if line and not line.startswith("-")}


def declared_dependencies() -> set[str]:
    package = ElementTree.parse(CHECKOUT / "package.xml").getroot()
    return {element.text for element in package if element.tag.endswith("depend")}


def test_every_import_comes_with_a_ros_installation_or_is_listed_beside_it():
    available = declared_dependencies() | required("ros-installation.txt")
    missing = {name for name in imports("") if APT_KEYS.get(name, name) not in available}
    assert not missing


def test_every_import_without_ros_is_pinned_for_make_setup_and_known_to_pip():
    pinned = required("core.txt", "sim.txt", "lerobot.txt", "search.txt", "ros-jazzy.txt")
    setup = (CHECKOUT / "setup.py").read_text()
    parts = [path.name for path in (CHECKOUT / "deer_ros").iterdir() if path.is_dir()]
    for name in set().union(*(imports(part) for part in parts if part != "nodes")):
        assert PIP_NAMES.get(name, name) in pinned
        assert re.search(rf'"{PIP_NAMES.get(name, name)}\b', setup), f"setup.py lacks {name}"


@pytest.mark.parametrize("file", sorted((CHECKOUT / "requirements").glob("*.txt")), ids=str)
def test_every_requirement_has_one_exact_version(file):
    for line in file.read_text().splitlines():
        line = line.split("#")[0].strip()
        if line and not line.startswith("-") and line != 'numpy<2 ; python_version < "3.13"':
            assert re.fullmatch(r"[\w.-]+(\[[\w,]+\])?==[\w.]+( ; .*)?", line)


def test_cmake_finds_only_packages_that_package_xml_declares():
    found = re.findall(r"find_package\((\w+)", (CHECKOUT / "CMakeLists.txt").read_text())
    assert set(found) <= declared_dependencies()


# Executables


@pytest.mark.parametrize("name", EXECUTABLES)
def test_an_executable_is_installed_and_starts_with_env(name):
    script = CHECKOUT / "scripts" / name
    assert script.read_text().startswith("#!/usr/bin/env python3\n")
    assert os.access(script, os.X_OK)
    assert f"scripts/{name}" in (CHECKOUT / "CMakeLists.txt").read_text()


@pytest.mark.parametrize("name", NODES)
def test_a_node_without_ros_says_what_is_missing_in_one_line(name):
    program = (f"{NO_ROS}from deer_ros.nodes.executable import start\n"
               f"raise SystemExit(start('{name}'))")
    done = run(sys.executable, "-c", program)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"{name}: ROS 2 \(rclpy\) is not installed.*\n", done.stderr)


def test_a_node_without_its_messages_says_to_build_them():
    program = (
        "import sys; sys.modules['deer_ros.msg'] = None\n"
        "from deer_ros.nodes.executable import start\nraise SystemExit(start('policy_node'))"
    )
    done = run(sys.executable, "-c", program)
    assert done.returncode == 2
    assert re.fullmatch(r"policy_node: the messages .* colcon build.*\n", done.stderr)


# An installation by pip, without ROS


@pytest.fixture(scope="module")
def pip_installation(tmp_path_factory) -> Path:
    """The folder that pip installed the package into, from a copy of the checkout."""
    sources = tmp_path_factory.mktemp("sources") / "deer_ros"
    unneeded = shutil.ignore_patterns(".*", "build", "install", "log", "test", "demo_output")
    shutil.copytree(CHECKOUT, sources, ignore=unneeded)
    target = tmp_path_factory.mktemp("installed")
    pip = ("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    done = run(sys.executable, *pip, "--target", target, sources)
    assert done.returncode == 0, done.stderr
    return target


def run_installed(target: Path, program: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(target)}
    return run(sys.executable, "-c", NO_ROS + program, cwd=target, env=environment)


def test_pip_installs_the_files_that_come_with_the_package(pip_installation):
    done = run_installed(
        pip_installation,
        "import deer_ros; from deer_ros.resources import share\n"
        "print(deer_ros.__file__, share('config', 'deer.yaml'), sep='\\n')",
    )
    share = pip_installation / "share" / "deer_ros"
    assert done.stdout.splitlines() == [
        str(pip_installation / "deer_ros" / "__init__.py"), str(share / "config" / "deer.yaml"),
    ]  # fmt: skip
    bundled = CHECKOUT / "models" / "bundled"
    for file in bundled.rglob("*"):
        assert (share / "models" / "bundled" / file.relative_to(bundled)).exists()


def test_pip_installs_the_deer_command(pip_installation):
    assert (pip_installation / "bin" / "deer").is_file()
    done = run_installed(
        pip_installation, "from deer_ros.cli.main import main; raise SystemExit(main(['--help']))"
    )
    assert done.returncode == 0
    assert "collect" in done.stdout


def test_a_copy_without_its_files_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "deer_ros" / "resources.py"))
    with pytest.raises(FileNotFoundError, match=r"config/deer\.yaml.*Install the package again"):
        resources.share()


def test_the_share_folder_of_a_colcon_install_is_found_below_its_prefix(tmp_path, monkeypatch):
    module = tmp_path / "local/lib/python3.10/dist-packages/deer_ros/resources.py"
    share = tmp_path / "share" / "deer_ros"
    (share / "config").mkdir(parents=True)
    (share / "config" / "deer.yaml").touch()
    monkeypatch.setattr(resources, "__file__", str(module))
    assert resources.share() == share
    with pytest.raises(FileNotFoundError, match="bundled model is missing"):
        resources.bundled_model()
