from __future__ import annotations

import json

import numpy as np
import pytest
from cost_tables import HIGH, cost_table
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.budget.timing import CostTable, Milliseconds

times = st.lists(st.floats(0.01, 100), min_size=1, max_size=6)


@given(samples=st.lists(st.floats(0, 1e3), min_size=1, max_size=300))
def test_at_most_one_of_a_hundred_samples_is_above_the_high_percentile(samples):
    found = Milliseconds.of(samples)
    assert found.p50 == pytest.approx(np.median(samples)) and found.p99 in samples
    assert sum(sample > found.p99 for sample in samples) <= 0.01 * len(samples)


@given(segments=times)
def test_a_table_survives_json(segments):
    table = cost_table(segments)
    assert CostTable.from_json(json.loads(json.dumps(table.to_json()))) == table


@given(segments=times)
def test_exits_take_what_the_segments_before_them_do(segments):
    table = cost_table(segments)
    np.testing.assert_allclose(table.exits_ms(), np.cumsum(segments))
    np.testing.assert_allclose(table.exits_ms("p99"), HIGH * np.cumsum(segments))
    assert table.fixed_ms("p99") == table.step_ms(0, "p99") == pytest.approx(HIGH * segments[0])


def test_a_table_can_be_cut_and_grown_to_another_depth():
    table = cost_table([10.0, 5.0, 5.0])
    assert table.at_depth((2, 4, 6)) == table
    cut = table.at_depth((2, 4))
    assert cut.exit_layers == (2, 4) and len(cut.layers) == 4
    assert cut.exits == table.exits[:2]
    grown = cut.at_depth((2, 4, 6, 8))
    assert len(grown.layers) == 8 and len(grown.segments) == 4
    assert (np.diff(grown.exits_ms()) > 0).all()
    assert grown.exits[:2] == table.exits[:2]


@pytest.mark.parametrize("percentile", ["p95", "mean", ""])
def test_another_percentile_is_refused(percentile):
    with pytest.raises(ValueError, match="percentile is .*; allowed are p50, p99"):
        cost_table([1.0]).step_ms(0, percentile)


@pytest.mark.parametrize(
    ("harm", "complaint"),
    [
        (lambda values: values.pop("head"), "cost table.head is missing"),
        (lambda values: values["exits"][1].pop("p99"), r"cost table.exits\[1\].p99 is missing"),
        (lambda values: values["layers"].pop(), "a cost table has 3 layers"),
        (lambda values: values["exits"].pop(), "times of 1 exits"),
        (lambda values: values.update(heads=1), "unknown key 'cost table.heads'"),
        (lambda values: values["head"].update(p50=float("nan")), "head.p50 is NaN"),
        (lambda values: values["head"].update(p50=float("inf")), "head.p50 .* is inf ms"),
        (lambda values: values["vision"].update(p50=-0.5), "vision.p50 .* is -0.5 ms"),
        (lambda values: values["layers"][3].update(p99=1e300), r"layers\[3\].p99 .* is 1e\+300"),
        (lambda values: values["segments"][1].update(p99=-2.0), r"segments\[1\].p99 .* is -2.0"),
        (lambda values: values["exits"][0].update(p50=float("-inf")), r"exits\[0\].p50 .* is -inf"),
        (lambda values: values["exits"][0].update(p99=1.0), "must not be lower"),
        (lambda values: values["head"].update(p50="fast"), "must be of type float"),
    ],
)
def test_a_file_that_is_no_cost_table_says_why(tmp_path, harm, complaint):
    values = cost_table([2.0, 1.0]).to_json()
    harm(values)
    file = tmp_path / "table.json"
    file.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=complaint) as raised:
        CostTable.load(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{}", "not json", pytest.param("[" * 10**5, id="nested too deep")]
)
def test_other_files_are_refused(tmp_path, text):
    (tmp_path / "table.json").write_text(text)
    with pytest.raises(ValueError, match="table.json"):
        CostTable.load(tmp_path / "table.json")


def test_a_file_that_is_not_there_or_a_folder_says_what_makes_one(tmp_path):
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no cost table {path}; `deer bench --out`"):
            CostTable.load(path)
