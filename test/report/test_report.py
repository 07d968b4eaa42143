from __future__ import annotations

import io
import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from deer_ros.report.contact_sheet import SheetRow, contact_sheet, spread
from deer_ros.report.episodes import EpisodeRecord, StepRecord, summarise
from deer_ros.report.files import write_json, write_png
from deer_ros.report.tables import console, number, task_table


def episode(task="reach", success=True, layers=(1, 2, 8), latency_ms=None) -> EpisodeRecord:
    steps = tuple(StepRecord(layer, 0.1 * layer, 0.1 * layer + 1.0, 2.0 * layer, latency_ms)
                  for layer in layers)
    return EpisodeRecord(task, 7, f"{task} it", success, steps)


def row(frames, success=True) -> SheetRow:
    return SheetRow("reach", "success", success, ("seed 7",), tuple(frames), ("",) * len(frames))


def test_every_task_has_a_summary_and_the_last_is_over_all():
    summaries = summarise([episode("reach"), episode("push", success=False), episode("reach")])
    assert [summary.task for summary in summaries] == ["reach", "push", "all"]
    assert [(s.successes, s.episodes) for s in summaries] == [(2, 2), (0, 1), (2, 3)]


def test_a_mean_is_over_steps_not_over_episodes():
    total = summarise([episode(layers=(1,)), episode(layers=(4, 4, 4))])[-1]
    assert total.mean_exit_layer == pytest.approx(13 / 4)
    assert total.llm_gflops == pytest.approx(1.3 / 4)
    assert total.step_gflops == pytest.approx(1.3 / 4 + 1)
    assert total.mean_steps == 2


def test_percentiles_are_of_the_steps_of_the_task():
    total = summarise([episode(layers=range(1, 102))])[-1]
    assert (total.model_ms_p50, total.model_ms_p95) == (pytest.approx(102), pytest.approx(192))


def test_an_episode_without_a_step_makes_no_number_up(tmp_path):
    summary = summarise([episode(layers=(), success=False)])[-1]
    assert math.isnan(summary.mean_exit_layer)
    write_json(tmp_path / "summary.json", summary.to_json())
    assert json.loads((tmp_path / "summary.json").read_text())["mean_exit_layer"] is None


def test_a_table_in_a_pipe_is_plain_and_not_folded():
    stream = io.StringIO()
    console(stream).print(task_table("Demo", summarise([episode("button-press-topdown")]), 8))
    text = stream.getvalue()
    assert "\x1b" not in text
    line = next(line for line in text.splitlines() if "button-press-topdown" in line)
    assert "1/1" in line and "3.67" in line


def test_latency_has_a_column_only_where_it_was_measured():
    def drawn(latency_ms):
        stream = io.StringIO()
        console(stream).print(task_table("Demo", summarise([episode(latency_ms=latency_ms)])))
        return stream.getvalue()
    assert "stamp to" not in drawn(None)
    assert "stamp to" in drawn(4.5) and "4.50" in drawn(4.5)


def test_a_table_keeps_its_numbers_whole_on_a_terminal_of_80_columns():
    stream = io.StringIO()
    summaries = summarise([episode("button-press-topdown")])
    Console(file=stream, width=80).print(task_table("Demo", summaries, 8))
    assert "…" not in stream.getvalue()
    assert "0.367" in stream.getvalue() and "1.37" in stream.getvalue()


@pytest.mark.parametrize("value, text", [(0.01234, "0.0123"), (1.5, "1.50"), (1234.5, "1234"),
                                         (0.0, "0"), (None, "-"), (math.nan, "-")])
def test_a_number_keeps_three_digits(value, text):
    assert number(value) == text


def test_an_episode_survives_json(tmp_path):
    write_json(tmp_path / "deep" / "episode.json", episode().to_json())
    read = json.loads((tmp_path / "deep" / "episode.json").read_text())
    assert read["success"] is True and read["per_step"]["exit_layer"] == [1, 2, 8]


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError):
        write_json(path, {"a": math.nan})
    assert json.loads(path.read_text()) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_png_keeps_its_colours(tmp_path):
    image = np.zeros((4, 6, 3), np.uint8)
    image[..., 0] = 200
    write_png(tmp_path / "red.png", image)
    assert (cv2.imread(str(tmp_path / "red.png"))[..., ::-1] == image).all()


def test_a_sheet_holds_a_row_per_episode_and_frames_in_order():
    frames = [np.full((128, 128, 3), shade, np.uint8) for shade in (50, 100, 150)]
    sheet = contact_sheet([row(frames), row(frames[:1], success=False)], columns=3,
                          frame_height=100)
    shades = [(sheet == shade).all(axis=2).sum() for shade in (50, 100, 150)]
    assert shades == [2 * 100 * 100, 100 * 100, 100 * 100]
    first, last = ((sheet == shade).all(axis=2).nonzero()[1].min() for shade in (50, 150))
    assert first < last


def test_a_sheet_of_an_episode_without_a_picture_has_its_title():
    sheet = contact_sheet([row([], success=False)], columns=4)
    assert (sheet != sheet[-1, -1]).any()


def test_a_sheet_without_rows_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([], columns=4)


@given(st.integers(0, 300), st.integers(0, 12))
def test_spread_keeps_the_ends_and_the_order(count, wanted):
    picked = spread(count, wanted)
    assert len(picked) == min(count, wanted)
    assert picked == sorted(set(picked))
    if wanted >= 2 and count >= 2:
        assert picked[0] == 0 and picked[-1] == count - 1
