"""Where a study is kept, so that it can be resumed, and shared by several workers."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from optuna import Study, create_study
from optuna.exceptions import OptunaError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

from deer_ros.search.scoring import ScorerError, told

# A worker that gave no sign of life for two of these is taken for dead.
HEARTBEAT_S = 30
# Workers that start at once may find each other's tables half made, or the file locked.
ATTEMPTS, PAUSE_S, SQLITE_WAIT_S = 6, 0.3, 60.0
# Where an error comes from if a storage had a part in it.
MODULES = ("optuna.storages", "sqlalchemy", "alembic")
# What Optuna raises when it goes on after an error.
STUMBLES = (UnboundLocalError, AssertionError)


class StorageError(ValueError):
    """A storage that cannot be used, or not any more. Its sentence says why, and what to do."""


class LostError(Exception):
    """What was written into a study is not in it."""


def open_study(storage: str | None, name: str, sampler: BaseSampler) -> Study:
    """The study of that name, made if it is not there; its trials' values are maximised.

    storage: a database's URL, the path of a journal file, or None for this process's memory.
    Raises StorageError where it cannot be opened.
    """
    began = time.monotonic()
    for attempt in range(ATTEMPTS):
        try:
            return create_study(
                storage=_storage(storage), sampler=sampler, study_name=name,
                direction="maximize", load_if_exists=True,
            )
        except ImportError as error:
            raise _unusable(storage, error) from error
        except Exception as error:  # databases and their drivers raise what they like
            # Who waited for a locked file has waited long enough.
            if attempt == ATTEMPTS - 1 or time.monotonic() - began > SQLITE_WAIT_S:
                raise _unusable(storage, error) from error
            time.sleep(PAUSE_S)
    raise AssertionError("not reached")


def kept(attributes: Mapping[str, Any], key: str) -> Any:
    """What a study or a trial was given under this name. LostError where it is gone."""
    if key not in attributes:
        raise LostError(f"{key!r} of the study was written into it and is gone")
    return attributes[key]


@contextmanager
def telling_storage_errors(storage: str | None) -> Iterator[None]:
    """A storage that fails while it is in use is a StorageError, whatever Optuna makes of that."""
    try:
        yield
    except (ScorerError, StorageError):
        raise
    except Exception as error:  # databases and their drivers raise what they like
        if storage is None or not _is_of_storage(error):
            raise
        raise StorageError(
            f"the storage {storage} cannot be used any more: {_reason(error)}. Run the same "
            "command again when it can be, or name another storage."
        ) from error


class _Database(RDBStorage):
    def record_heartbeat(self, trial_id: int) -> None:
        """As RDBStorage; in a thread of its own, where nobody can be told of an error. Whatever is
        wrong, the trial's result cannot be written either, and that is told."""
        try:
            super().record_heartbeat(trial_id)
        except Exception:
            return


def _storage(storage: str | None) -> BaseStorage | None:
    if storage is None:
        return None
    if "://" not in storage:
        return JournalStorage(JournalFileBackend(storage))
    wait = {"connect_args": {"timeout": SQLITE_WAIT_S}} if storage.startswith("sqlite") else {}
    return _Database(storage, engine_kwargs=wait, heartbeat_interval=HEARTBEAT_S)


def _unusable(storage: str | None, error: Exception) -> StorageError:
    return StorageError(
        f"the storage {storage} cannot be used: {_reason(error)}. Name a database such as "
        "sqlite:///search.db, or a file for Optuna's journal."
    )


def _chain(error: BaseException) -> list[BaseException]:
    """The error, what it was raised from, and so on."""
    errors = [error]
    while (before := errors[-1].__cause__ or errors[-1].__context__) is not None:
        errors.append(before)
    return errors


def _is_of_storage(error: Exception) -> bool:
    """Whether a storage had a part in it.

    Optuna goes on after a storage's error, and stumbles over what is missing then: the type of what
    it raises tells nothing. A sampler's errors are none of a storage's.
    """
    chain = _chain(error)
    frames = (frame for e in chain for frame, _ in traceback.walk_tb(e.__traceback__))
    return any(isinstance(e, (LostError, OptunaError)) for e in chain) or any(
        frame.f_globals.get("__name__", "").startswith(MODULES) for frame in frames
    )


def _reason(error: Exception) -> str:
    """What began it, on one line: the driver's own words where there are any."""
    chain = _chain(error)
    driver = next((e.orig for e in chain if getattr(e, "orig", None)), None)
    first = driver or next((e for e in chain if not isinstance(e, STUMBLES)), chain[-1])
    text = told(first)
    if isinstance(first, (OSError, LostError)) or first is driver:  # these say it in words
        text = text.partition(": ")[2] or text
    return text.rstrip(".")
