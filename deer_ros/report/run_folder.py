"""The folder that a run leaves behind: a contact sheet and every number as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deer_ros.report.contact_sheet import SheetRow, contact_sheet, spread
from deer_ros.report.episodes import PicturedEpisode, summarise
from deer_ros.report.files import write_json, write_png

FRAMES_PER_EPISODE = 8


def write_run(folder: Path, episodes: Sequence[PicturedEpisode], settings: dict,
              layers: int) -> None:
    """contact_sheet.png and results.json. layers: depth of the model."""
    rows = [_sheet_row(episode, layers) for episode in episodes]
    write_png(folder / "contact_sheet.png", contact_sheet(rows, FRAMES_PER_EPISODE))
    write_json(folder / "results.json", results(episodes, settings))


def results(episodes: Sequence[PicturedEpisode], settings: dict) -> dict:
    """JSON-ready: settings, a summary per task and over all, and every step of every episode."""
    records = [episode.record for episode in episodes]
    return {
        "settings": settings,
        "summary": [summary.to_json() for summary in summarise(records)],
        "episodes": [record.to_json() for record in records],
    }


def _sheet_row(episode: PicturedEpisode, layers: int) -> SheetRow:
    record = episode.record
    shown = [episode.pictures[index] for index in spread(len(episode.pictures), FRAMES_PER_EPISODE)]
    return SheetRow(
        title=record.task,
        outcome=f"{record.outcome} after {len(record.steps)} steps",
        success=record.success,
        details=(record.instruction, f"mean exit {record.mean_exit_layer:.2f} of {layers}",
                 f"seed {record.seed}"),
        frames=tuple(picture.rgb for picture in shown),
        captions=tuple(f"step {picture.step}, exit {picture.exit_layer}" for picture in shown),
    )
