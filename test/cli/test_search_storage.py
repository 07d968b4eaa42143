"""A storage that fails while `deer search` is using it, and studies in it that are not its own."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
import synthetic_scorer
from tiny_model import write_tiny_model

from deer_ros.cli.main import main
from deer_ros.search import storage as storages

TRIALS = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nobody frees in these tests what is locked."""
    monkeypatch.setattr(storages, "SQLITE_WAIT_S", 0.1)


def search(model: Path, storage: str, *more: str) -> int:
    return main([
        "search", str(model), "--scorer", "synthetic_scorer:score", "--sampler", "tpe",
        "--trials", str(TRIALS), "--episodes", "1", "--held-out", "1", "--storage", storage, *more,
    ])


def refused(capsys) -> str:
    """The one line that a failed search ends with."""
    streams = capsys.readouterr()
    assert streams.out == "" and "Traceback" not in streams.err
    *progress, last = streams.err.splitlines()
    assert all("success" in line or "comparing" in line for line in progress), progress
    assert last.startswith("deer search: ")
    return last


def lock(file: Path, stack: ExitStack) -> None:
    connection = sqlite3.connect(file)
    stack.callback(connection.close)
    connection.execute("begin exclusive")


def execute(file: Path, *statements: str) -> None:
    connection = sqlite3.connect(file)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def lose_tables(file: Path, stack: ExitStack) -> None:
    tables = ("trial_params", "trial_user_attributes", "study_user_attributes")
    execute(file, *(f"drop table {table}" for table in tables))


def lose_study(file: Path, stack: ExitStack) -> None:
    execute(file, "delete from studies", "delete from trials")


def overwrite(file: Path, stack: ExitStack) -> None:
    file.write_bytes(b"neither a database nor a journal\n" * 1000)


def append(line: bytes) -> Callable[[Path, ExitStack], None]:
    def harm(file: Path, stack: ExitStack) -> None:
        with file.open("ab") as stream:
            stream.write(line)

    return harm


def make_folder(file: Path, stack: ExitStack) -> None:
    file.unlink()
    file.mkdir()


def delete(file: Path, stack: ExitStack) -> None:
    file.unlink()


def truncate(file: Path, stack: ExitStack) -> None:
    os.truncate(file, file.stat().st_size // 2)


@pytest.mark.parametrize("call", [
    pytest.param(1, id="start"), pytest.param(TRIALS, id="trial"),
    pytest.param(TRIALS + 1, id="held out"),
])
@pytest.mark.parametrize(("storage", "harm", "reason"), [
    pytest.param("sqlite:///{}", lock, "database is locked", id="locked"),
    pytest.param("sqlite:///{}", lose_tables, "no such table", id="lost tables"),
    pytest.param("sqlite:///{}", lose_study, "KeyError: 'Record does not", id="lost study"),
    pytest.param("sqlite:///{}", overwrite, "file is not a database", id="overwritten"),
    pytest.param("{}", append(b"no json\n"), "JSONDecodeError: Expecting value", id="no JSON"),
    pytest.param("{}", append(b"null\n"), "TypeError: 'NoneType'", id="no entry"),
    pytest.param("{}", make_folder, "[Errno 21] Is a directory", id="folder"),
    pytest.param("{}", delete, "", id="deleted journal"),
    pytest.param("{}", truncate, "", id="truncated journal"),
])
def test_a_storage_that_fails_in_a_search_is_one_sentence(
    capsys, monkeypatch, model, tmp_path, storage, harm, reason, call
):
    file, calls = tmp_path / "kept", []
    score = synthetic_scorer.score
    with ExitStack() as stack:

        def harmful(*arguments):
            calls.append(arguments)
            if len(calls) == call:
                harm(file, stack)
            return score(*arguments)

        monkeypatch.setattr(synthetic_scorer, "score", harmful)
        assert search(model, storage.format(file)) == 2
    line = refused(capsys)
    assert f"the storage {storage.format(file)} cannot be used any more: {reason}" in line
    assert "Run the same command again" in line
    assert not (model / "thresholds.json").exists()


def test_who_waited_for_a_locked_file_does_not_wait_again(capsys, monkeypatch, model, tmp_path):
    monkeypatch.setattr(storages, "SQLITE_WAIT_S", 0.0)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail("tries again"))
    with ExitStack() as stack:
        lock(tmp_path / "kept", stack)
        assert search(model, f"sqlite:///{tmp_path}/kept") == 2
    assert "cannot be used: database is locked. Name a database" in refused(capsys)


def test_a_database_of_another_version_is_one_sentence(capsys, model, tmp_path):
    storage = f"sqlite:///{tmp_path}/kept"
    optuna.create_study(storage=storage)
    execute(
        tmp_path / "kept", "update version_info set schema_version = 99",
        "update alembic_version set version_num = 'v99.a'",
    )
    assert search(model, storage) == 2
    assert "is no longer compatible with the table schema" in refused(capsys)


@pytest.mark.parametrize("made", [
    {"direction": "minimize"}, {"directions": ["maximize", "maximize"]},
])
def test_an_empty_study_of_another_kind_is_not_filled(capsys, model, tmp_path, made):
    storage = f"sqlite:///{tmp_path}/kept"
    study = optuna.create_study(storage=storage, study_name="deer", **made)
    assert search(model, storage) == 2
    assert "the study 'deer' in this storage was not made by `deer search`" in refused(capsys)
    assert not study.get_trials() and not study.user_attrs


def test_a_study_that_lost_what_its_trials_were_is_one_sentence(capsys, model, tmp_path):
    storage = f"sqlite:///{tmp_path}/kept"
    assert search(shutil.copytree(model, tmp_path / "copy"), storage) == 0
    capsys.readouterr()
    execute(tmp_path / "kept", "delete from trial_user_attributes")
    assert search(model, storage) == 2
    assert "'thresholds' of the study was written into it and is gone" in refused(capsys)


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_heartbeat_that_fails_is_no_traceback_of_a_thread(tmp_path):
    database = storages.open_study(f"sqlite:///{tmp_path}/kept", "deer", None)._storage
    overwrite(tmp_path / "kept", None)
    database.record_heartbeat(0)
