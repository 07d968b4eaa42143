"""Where a study is kept, so that it can be resumed, and shared by several workers."""

from __future__ import annotations

import time

from optuna import Study, create_study
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalStorage

# A worker that gave no sign of life for two of these is taken for dead.
HEARTBEAT_S = 30
# Workers that start at once may find each other's tables half made, or the file locked.
ATTEMPTS, PAUSE_S, SQLITE_WAIT_S = 6, 0.3, 60.0


def open_study(storage: str | None, name: str, sampler: BaseSampler) -> Study:
    """The study of that name, made if it is not there; its trials' values are maximised.

    storage: a database's URL, the path of a journal file, or None for this process's memory.
    Raises ValueError with a sentence where it cannot be opened.
    """
    for attempt in range(ATTEMPTS):
        try:
            return create_study(
                storage=_storage(storage), sampler=sampler, study_name=name,
                direction="maximize", load_if_exists=True,
            )
        except ImportError as error:
            raise _unusable(storage, error) from error
        except Exception as error:  # databases and their drivers raise what they like
            if attempt == ATTEMPTS - 1:
                raise _unusable(storage, error) from error
            time.sleep(PAUSE_S)
    raise AssertionError("not reached")


def _storage(storage: str | None) -> BaseStorage | None:
    if storage is None:
        return None
    if "://" not in storage:
        return JournalStorage(JournalFileBackend(storage))
    wait = {"connect_args": {"timeout": SQLITE_WAIT_S}} if storage.startswith("sqlite") else {}
    return RDBStorage(storage, engine_kwargs=wait, heartbeat_interval=HEARTBEAT_S)


def _unusable(storage: str | None, error: Exception) -> ValueError:
    reason = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
    return ValueError(
        f"the storage {storage} cannot be used: {reason[0]}. Name a database such as "
        "sqlite:///search.db, or a file for Optuna's journal."
    )
