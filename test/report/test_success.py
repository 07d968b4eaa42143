"""Success against cost, as tables and as a picture."""

from __future__ import annotations

import io
from itertools import combinations
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure
from rich.console import Console

from deer_ros.evaluation.statistics import wilson
from deer_ros.report.success_curve import Point, write_success_curve
from deer_ros.report.tables import WideTable, success_table

EXITS = [f"exit {layer}" for layer in range(1, 17)]
LONG = ["average_gflops=0.012,scope=step,tracking=no", "threshold " + "/".join(["0.0117"] * 16)]


def summary(setting: str):
    tasks = [SimpleNamespace(task=f"plate-slide-back-side-{n}", rate=wilson(30, 30))
             for n in range(3)]
    return SimpleNamespace(
        setting=setting, tasks=tasks, success=wilson(90, 90), episodes=90, mean_exit_layer=2.0,
        mean_llm_gflops=0.005, mean_step_gflops=0.032, mean_step_ms=7.0,
    )


def printed(table, width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(table)
    return stream.getvalue()


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("settings", [EXITS[:2], EXITS, EXITS + LONG])
def test_success_can_be_read_however_many_settings_there_are(settings, width):
    text = printed(success_table([summary(setting) for setting in settings]), width)
    assert "…" not in text
    assert text.count("100.0 [96, 100]") == len(settings)
    assert text.count("100.0 [89, 100]") == 3 * len(settings)
    rows = [" ".join(line.split()) for line in text.splitlines()]
    for setting in EXITS[: len(settings)]:
        assert f"{setting} 100.0 [96, 100] 90 2.00 5.0 32.0 7.0" in rows


def test_a_wide_table_has_as_few_blocks_as_fit_and_the_first_column_in_each():
    wide = WideTable("wide", ("task", *"abcd"), [("push", *("1234567",) * 4)])
    assert [printed(wide, width).count("push") for width in (100, 30, 20)] == [1, 2, 4]


def test_labels_of_sixteen_exits_do_not_lie_over_each_other(tmp_path, monkeypatch):
    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda figure, *a, **k: (
        drawn.append(figure), save(figure, *a, **k)
    ))
    points = [
        Point(name, True, 0.95, 0.9, 0.99, 0.0021 * layer, 0.0269 + 0.0021 * layer)
        for layer, name in enumerate(EXITS, 1)
    ]
    write_success_curve(tmp_path / "curve.png", points, "title")
    drawn[0].set_dpi(150)  # as it was saved
    for panel in drawn[0].axes:
        places = [label.get_window_extent() for label in panel.texts]
        assert len(places) == 16
        assert not any(one.overlaps(other) for one, other in combinations(places, 2))
