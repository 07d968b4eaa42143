from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import deer_ros.cli
from deer_ros.cli.main import find_commands, main

FOLDER = Path(deer_ros.cli.__file__).resolve().parent


@pytest.fixture
def command(monkeypatch):
    """Makes `deer info` run this body instead of its own."""

    def replace(run):
        monkeypatch.setattr("deer_ros.cli.info.run", run)

    return replace


def test_help_lists_every_command_with_its_line(capsys):
    commands = find_commands(FOLDER)
    assert {"info", "collect", "train", "evaluate"} <= set(commands)
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert all(f"{name} {summary}" in shown for name, summary in commands.items())


def test_commands_are_found_without_being_imported(tmp_path):
    (tmp_path / "fly.py").write_text('import nowhere\nHELP = "fly away"\n')
    (tmp_path / "helper.py").write_text("NUMBER = 1\n")
    assert find_commands(tmp_path) == {"fly": "fly away"}


def test_help_of_a_command_shows_its_arguments(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["info", "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["info", "--wings"], ["--wings"]])
def test_a_usage_error_is_one_line_and_exit_code_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown = capsys.readouterr()
    assert (ended.value.code, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert shown.err.startswith("deer")
    assert shown.err.endswith("--help)\n")


def test_the_exit_code_is_the_command_s(command):
    command(lambda arguments: 1)
    assert main(["info"]) == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("The exit 7 is not among 2, 4, 6."), "The exit 7 is not among 2, 4, 6."),
        (FileNotFoundError(2, "No such file or directory", "x"), "x"),
        (ModuleNotFoundError("no", name="metaworld"), "module metaworld is not installed. It comes "
         "with `pip install '.[sim]'`"),
        (ModuleNotFoundError("no", name="rosbags"), "module rosbags is not installed."),
    ],
)
def test_what_a_command_cannot_do_is_one_line_and_exit_code_2(error, sentence, command, capsys):
    def fail(arguments):
        raise error

    command(fail)
    assert main(["info"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("deer info: ")
    assert sentence in shown
    assert shown.count("\n") == 1


def test_an_interrupted_command_ends_without_a_traceback(command, capsys):
    def interrupt(arguments):
        raise KeyboardInterrupt

    command(interrupt)
    assert main(["info"]) == 130
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["info"], ["info", "--json"]])
def test_where_nobody_reads_on_a_command_ends_quietly(arguments):
    command = subprocess.Popen(
        [sys.executable, "-m", "deer_ros.cli", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    command.stdout.close()
    assert command.stderr.read() == ""
    assert command.wait(60) == 141


def test_what_cannot_be_told_is_one_line_and_exit_code_2():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "deer_ros.cli", "info", "--json"], stdout=full,
            stderr=subprocess.PIPE, text=True, timeout=60,
        )
    assert done.returncode == 2 and "No space left" in done.stderr
    assert done.stderr.count("\n") == 1


def test_python_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "deer_ros.cli", "fly"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2
    assert textwrap.shorten(done.stderr, 40).startswith("deer: argument COMMAND: invalid")
