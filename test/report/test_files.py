"""Where files that are written whole land, and where they cannot."""

from __future__ import annotations

import json
import os
import stat

import pytest

from deer_ros.report.files import destination, write_json


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "kept").mkdir()
    link, file = tmp_path / "link.json", tmp_path / "kept" / "file.json"
    link.symlink_to(file)
    for content in ({"a": 1}, {"a": 2}):  # where it points to nothing yet, and to a file
        write_json(link, content)
        assert link.is_symlink() and json.loads(file.read_text()) == content
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(("kind", "said"), [
    (stat.S_IFIFO, "a pipe"), (stat.S_IFSOCK, "a socket"), (stat.S_IFDIR, "a folder"),
])  # fmt: skip
def test_what_is_no_file_is_neither_replaced_nor_written(tmp_path, kind, said):
    place, link = tmp_path / "place", tmp_path / "link"
    place.mkdir() if kind == stat.S_IFDIR else os.mknod(place, kind | 0o600)
    link.symlink_to(place)
    for path in (place, link):
        with pytest.raises(ValueError, match=f"{path} is {said}; name a file."):
            write_json(path, {"a": 1})
        assert stat.S_IFMT(place.stat().st_mode) == kind and link.is_symlink()


def test_a_device_is_no_destination():
    with pytest.raises(ValueError, match="/dev/null is a device; name a file."):
        destination("/dev/null")
