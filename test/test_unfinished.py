"""What a killed process left of a folder goes when the next one writes there; nothing else does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deer_ros.unfinished import LOCKED_WITHIN_S, take_place, unfinished_beside

WRITES_FOR_EVER = """
import sys, time
from pathlib import Path
from deer_ros.unfinished import unfinished_beside

with unfinished_beside(Path(sys.argv[1])) as unfinished:
    (unfinished / "weights").write_text("half")
    print(unfinished, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(tmp_path):
    """Another process that writes `tmp_path / "model"`, and where it does so, of long ago."""
    command = [sys.executable, "-c", WRITES_FOR_EVER, str(tmp_path / "model")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        unfinished = Path(process.stdout.readline().strip())
        make_old(unfinished)
        yield process, unfinished
        process.kill()


def make_old(folder: Path) -> None:
    then = time.time() - 2 * LOCKED_WITHIN_S
    os.utime(folder, (then, then))


def write(folder: Path) -> None:
    with unfinished_beside(folder) as unfinished:
        (unfinished / "weights").write_text("whole")
        unfinished.rename(folder)


def test_what_a_killed_process_left_goes_when_the_next_one_writes(writer, tmp_path):
    process, left = writer
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert left.is_dir()
    write(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "whole"


def test_what_another_process_writes_stays(writer, tmp_path):
    _, theirs = writer
    write(tmp_path / "model")
    assert (theirs / "weights").read_text() == "half"


@pytest.mark.parametrize(
    "name", [".model-old-1", ".model", ".model.unfinished", ".models.unfinished-1"]
)
def test_folders_of_other_names_stay(tmp_path, name):
    (tmp_path / name).mkdir()
    make_old(tmp_path / name)
    write(tmp_path / "model")
    assert (tmp_path / name).is_dir()


def test_a_folder_that_was_just_made_is_not_taken_for_left(tmp_path):
    (tmp_path / ".model.unfinished-1").mkdir()
    write(tmp_path / "model")
    assert (tmp_path / ".model.unfinished-1").is_dir()


def test_an_error_leaves_nothing(tmp_path):
    with pytest.raises(OSError, match="disk is full"), unfinished_beside(tmp_path / "a" / "model"):
        raise OSError("the disk is full")
    assert not list((tmp_path / "a").iterdir())


def test_signs_in_a_name_are_no_pattern(tmp_path):
    (tmp_path / ".mode.unfinished-1").mkdir()
    make_old(tmp_path / ".mode.unfinished-1")
    write(tmp_path / "mod[e]")
    assert (tmp_path / ".mode.unfinished-1").is_dir()


def folder_of(path: Path, content: str) -> Path:
    path.mkdir()
    (path / "content").write_text(content)
    return path


def test_a_folder_makes_way(tmp_path):
    new, folder = folder_of(tmp_path / "new", "new"), folder_of(tmp_path / "folder", "old")
    take_place(new, folder)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert (folder / "content").read_text() == "new"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
@pytest.mark.parametrize("number", [1, 2])
def test_a_folder_stays_where_it_cannot_make_way(tmp_path, monkeypatch, error, number):
    new, folder = folder_of(tmp_path / "new", "new"), folder_of(tmp_path / "folder", "old")
    rename, calls = Path.rename, []

    def fails(path, target):
        calls.append(path)
        if len(calls) == number:
            raise error
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(error):
        take_place(new, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "new"]
    assert (folder / "content").read_text() == "old"
