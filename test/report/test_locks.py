"""Who is at a folder or file, and that nobody else is then."""

from __future__ import annotations

import fcntl

import pytest

from deer_ros.report.locks import locked_beside, locked_file


def test_another_one_is_refused_until_the_first_is_done(tmp_path):
    out = tmp_path / "deep" / "out"
    for _ in range(2):
        with locked_beside(out, "writes"):
            with pytest.raises(ValueError, match="another process writes .*/out; wait for it"):
                with locked_beside(out, "writes"):
                    pass
    assert not list(out.parent.iterdir())


def test_a_lock_goes_where_the_block_fails(tmp_path):
    with pytest.raises(RuntimeError), locked_beside(tmp_path / "out", "writes"):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_what_a_killed_process_left_of_a_lock_does_not_lock(tmp_path):
    (tmp_path / ".out.lock").touch()
    with locked_beside(tmp_path / "out", "writes"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_lock_that_was_removed_while_it_was_opened_is_none(tmp_path, monkeypatch):
    """Its holder was about to go: another process would lock a new file of that name."""
    file, flock = tmp_path / "lock", fcntl.flock

    def late(handle, operation):
        if not calls:
            file.unlink()
        calls.append(operation)
        return flock(handle, operation)

    calls: list[int] = []
    monkeypatch.setattr(fcntl, "flock", late)
    with locked_file(file, "writes"):
        assert file.exists() and len(calls) == 2
        with pytest.raises(ValueError, match="another process writes"):
            with locked_file(file, "writes"):
                pass
