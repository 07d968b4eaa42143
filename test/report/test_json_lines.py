"""Files of one JSON object a line."""

from __future__ import annotations

import json
import math

import pytest

from deer_ros.report.json_lines import append_line, read_lines


def test_numbers_that_json_has_no_word_for_are_written_as_null(tmp_path):
    file = tmp_path / "lines.jsonl"
    append_line(file, {"loss": math.nan, "norms": (math.inf, 1.5), "of": {"a": -math.inf}})
    written = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert written == {"loss": None, "norms": [None, 1.5], "of": {"a": None}}


@pytest.mark.parametrize("line", ['{"a": NaN}', '{"a": [-Infinity]}', '{"a": 1e999}'])
def test_a_number_that_is_not_finite_is_named_with_file_and_line(tmp_path, line):
    file = tmp_path / "lines.jsonl"
    file.write_text('{"a": 1}\n' + line + "\n")
    with pytest.raises(ValueError, match=f"line 2 of {file} has NaN or infinity"):
        read_lines(file)


@pytest.mark.parametrize("line", [b'{"a": ', b"\xff"])
def test_what_is_no_json_is_named_with_file_and_line(tmp_path, line):
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(ValueError, match=f"line 2 of {file} is no JSON: "):
        read_lines(file)
