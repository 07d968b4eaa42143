"""What of a ROS 2 parameter file is the policy node's."""

from __future__ import annotations

import pytest

from deer_ros.parameter_file import read

FILE = """
/**: {ros__parameters: {device: cpu, safety: {max_jump: 0.1}}}
deer: {ros__parameters: {safety.max_jump: 0.2}}
/left/deer: {ros__parameters: {dry_run: true}}
/other: {ros__parameters: {device: cuda}}
"""


def test_later_sections_win_and_those_of_other_nodes_do_not_count(tmp_path):
    (tmp_path / "mine.yaml").write_text(FILE)
    assert read(tmp_path / "mine.yaml") == {"device": "cpu", "safety.max_jump": 0.2}


@pytest.mark.parametrize("namespace", ["left", "/left", "/left/"])
def test_in_a_namespace_the_section_bears_its_name(tmp_path, namespace):
    (tmp_path / "mine.yaml").write_text(FILE)
    assert read(tmp_path / "mine.yaml", namespace) == {
        "device": "cpu", "safety.max_jump": 0.1, "dry_run": True}


@pytest.mark.parametrize("content, words", [
    (b"a: [", "cannot be read"), (b"\xff\xfe", "cannot be read"), (b"[]", "no parameters of any"),
    (b"a: !!timestamp x", "cannot be read"), (b"a: " + 3000 * b"[", "cannot be read"),
    (b"a: !!int ''", "cannot be read"), (b"a: 2020-13-01", "cannot be read: month must be"),
    (b"/**: {x: 1}", "no ros__parameters under '/\\*\\*'"),
])
def test_what_is_no_parameter_file_is_named(tmp_path, content, words):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(ValueError, match=f"the parameter file .*mine.yaml .*{words}"):
        read(tmp_path / "mine.yaml")
