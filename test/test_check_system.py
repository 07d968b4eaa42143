from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_system.py"


@pytest.fixture
def check_system():
    specification = spec_from_file_location("check_system", SCRIPT)
    module = module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def machine(check_system, monkeypatch, tmp_path):
    """A machine with these tools, libraries and rights; its apt-get only notes its arguments."""

    def make(tools=("cmake", "g++"), libraries=("OSMesa",), root=False, apt_fails=0) -> Path:
        called, failures = tmp_path / "called", tmp_path / "failures"
        failures.write_text("x" * apt_fails)
        program = (
            f'#!/bin/sh\necho "$@" >> {called}\n[ -s {failures} ] || exit 0\n'
            f'read rest < {failures}; printf %s "${{rest#x}}" > {failures}\nexit 1\n'
        )
        called.touch()
        for name in ("apt-get", *tools):
            (tmp_path / name).write_text(program)
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path))
        monkeypatch.setattr("os.geteuid", lambda: 0 if root else 1000)
        monkeypatch.setattr("ctypes.util.find_library", lambda name: name in libraries)
        return called

    return make


@pytest.mark.parametrize(
    ("version", "machine_name"), [((3, 9, 18), "x86_64"), ((3, 14, 0), "x86_64"), (None, "aarch64")]
)
def test_a_python_without_wheels_gets_one_line(check_system, monkeypatch, version, machine_name):
    monkeypatch.setattr(sys, "version_info", version or sys.version_info)
    monkeypatch.setattr("platform.machine", lambda: machine_name)
    with pytest.raises(SystemExit, match=r"^ROS 2 wheels exist .* PYTHON=python3\.12.*$"):
        check_system.main()


def test_a_machine_that_has_everything_is_left_alone(check_system, machine, capsys):
    called = machine()
    check_system.main()
    assert (called.read_text(), capsys.readouterr().out) == ("", "")


def test_missing_build_tools_are_named_with_the_command_that_installs_them(check_system, machine):
    called = machine(tools=["g++"])
    with pytest.raises(SystemExit, match="^The set-up needs cmake: .* sudo apt-get install cmake$"):
        check_system.main()
    assert called.read_text() == ""


def test_root_installs_what_is_missing(check_system, machine):
    called = machine(tools=[], libraries=[], root=True)
    check_system.main()
    assert called.read_text().splitlines() == [
        "install --yes --quiet cmake g++", "install --yes --quiet libosmesa6",
    ]  # fmt: skip


def test_package_lists_are_fetched_when_the_first_try_fails(check_system, machine):
    called = machine(tools=["g++"], root=True, apt_fails=1)
    check_system.main()
    assert called.read_text().splitlines() == [
        "install --yes --quiet cmake", "update --quiet", "install --yes --quiet cmake",
    ]  # fmt: skip


def test_the_set_up_goes_on_without_rendering_and_says_so(check_system, machine, capsys):
    machine(libraries=[])
    check_system.main()
    assert capsys.readouterr().out.endswith("libosmesa6: install with  "
                                            "sudo apt-get install libosmesa6\n")  # fmt: skip
