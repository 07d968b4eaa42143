"""Finds and runs the sub-commands of `deer`.

A sub-command is a module beside this one with `HELP` (one line), `add_arguments(parser)` and
`run(arguments)`, which returns the exit code. Only the one that is asked for is imported, so that
`deer --help` does not wait for PyTorch.
"""

from __future__ import annotations

import argparse
import ast
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import NoReturn

# Which extra of setup.py brings what a command may lack.
EXTRAS = {
    "accelerate": "train", "tensorboardX": "train", "optuna": "search", "scipy": "search",
    "gymnasium": "sim", "metaworld": "sim", "mujoco": "sim",
}  # fmt: skip
USAGE_ERROR = 2
INTERRUPTED = 130
NOBODY_READS = 141  # as a shell says of whoever a broken pipe ends


def main(argv: Sequence[str] | None = None) -> int:
    """Run `deer` with these arguments (default: the command line's) and return the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    commands = find_commands(Path(__file__).resolve().parent)
    asked = argv[0] if argv and argv[0] in commands else None
    try:
        with _all_told():
            command = import_module(f"deer_ros.cli.{asked}") if asked else None
            arguments = _parser(commands, asked, command).parse_args(argv)
            with _termination_interrupts():
                return command.run(arguments)
    except BrokenPipeError:
        _let_go_of_pipes()
        return NOBODY_READS
    except ModuleNotFoundError as error:
        return _fail(asked, _missing(error.name or str(error)))
    except (ValueError, OSError) as error:
        return _fail(asked, str(error))
    except KeyboardInterrupt:
        return INTERRUPTED


@contextmanager
def _all_told() -> Iterator[None]:
    """What is still held back is told at the end: when Python ends, an error would be its own."""
    try:
        yield
    finally:
        sys.stdout.flush()


def _let_go_of_pipes() -> None:
    """What nobody reads goes nowhere, or Python would complain of it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _missing(module: str) -> str:
    extra = EXTRAS.get(module.split(".")[0])
    remedy = f" It comes with `pip install '.[{extra}]'` in this package's folder." if extra else ""
    return f"the Python module {module} is not installed.{remedy}"


@contextmanager
def _termination_interrupts() -> Iterator[None]:
    """A kind request to end is like Ctrl-C: nothing half-written stays, and no process of ours."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def find_commands(folder: Path) -> dict[str, str]:
    """The names of the modules in `folder` that have HELP, with its text; none is imported."""
    commands = {}
    for source in sorted(folder.glob("*.py")):
        for statement in ast.parse(source.read_text(encoding="utf-8")).body:
            if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "HELP":
                commands[source.stem] = ast.literal_eval(statement.value)
    return commands


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line, without the usage text."""
        self.exit(USAGE_ERROR, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser(
    commands: dict[str, str], asked: str | None, command: ModuleType | None
) -> argparse.ArgumentParser:
    parser = _Parser(prog="deer", description="Early-exit vision-language-action policies.")
    sub_parsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, summary in commands.items():
        sub_parser = sub_parsers.add_parser(name, help=summary, description=summary)
        if name == asked:
            command.add_arguments(sub_parser)
    return parser


def _fail(asked: str | None, sentence: str) -> int:
    print(f"deer {asked}: {sentence}", file=sys.stderr)
    return USAGE_ERROR
