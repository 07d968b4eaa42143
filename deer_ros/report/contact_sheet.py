"""A contact sheet: one row of pictures per episode, with what happened written beside it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

LABEL_WIDTH = 250
# As many small letters fit beside each other.
LABEL_CHARACTERS = 30
GAP = 6
LINE_HEIGHT = 20
FONT = cv2.FONT_HERSHEY_SIMPLEX

BACKGROUND = (24, 26, 30)
TEXT = (225, 225, 225)
FAINT = (150, 155, 160)
GOOD = (110, 210, 120)
BAD = (240, 110, 100)


@dataclass(frozen=True)
class SheetRow:
    """title, then `outcome` in green or red, then details, wrapped where they are long (ASCII).

    frames: uint8 (H, W, 3) RGB each, of any size; captions: one per frame, may be empty.
    """

    title: str
    outcome: str
    success: bool
    details: tuple[str, ...]
    frames: tuple[np.ndarray, ...]
    captions: tuple[str, ...]


def contact_sheet(rows: Sequence[SheetRow], columns: int, frame_height: int = 144) -> np.ndarray:
    """uint8 (H, W, 3) RGB. Rows with fewer than `columns` frames end in empty space."""
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    frame_width = _frame_width(rows, frame_height)
    width = LABEL_WIDTH + columns * (frame_width + GAP) + GAP
    height = len(rows) * (frame_height + GAP) + GAP
    sheet = np.full((height, width, 3), BACKGROUND, np.uint8)
    for index, row in enumerate(rows):
        top = GAP + index * (frame_height + GAP)
        _write_label(sheet, row, top)
        for column, (frame, caption) in enumerate(zip(row.frames[:columns], row.captions)):
            left = LABEL_WIDTH + column * (frame_width + GAP)
            small = cv2.resize(frame, (frame_width, frame_height), interpolation=cv2.INTER_AREA)
            _write_caption(small, caption)
            sheet[top:top + frame_height, left:left + frame_width] = small
    return sheet


def spread(count: int, wanted: int) -> list[int]:
    """Up to `wanted` indices of a sequence of `count`, evenly spread, first and last among them."""
    if count <= 0 or wanted <= 0:
        return []
    return sorted({int(index) for index in np.linspace(0, count - 1, min(count, wanted)).round()})


def _frame_width(rows: Sequence[SheetRow], frame_height: int) -> int:
    for row in rows:
        for frame in row.frames:
            return round(frame.shape[1] / frame.shape[0] * frame_height)
    return frame_height


def _write_label(sheet: np.ndarray, row: SheetRow, top: int) -> None:
    _write(sheet, row.title, 2 * GAP, top + LINE_HEIGHT, TEXT, 0.55)
    _write(sheet, row.outcome, 2 * GAP, top + 2 * LINE_HEIGHT, GOOD if row.success else BAD, 0.5)
    lines = [line for detail in row.details for line in textwrap.wrap(detail, LABEL_CHARACTERS)]
    for number, line in enumerate(lines, start=3):
        _write(sheet, line, 2 * GAP, top + number * LINE_HEIGHT, FAINT, 0.42)


def _write_caption(frame: np.ndarray, caption: str) -> None:
    if caption:
        frame[-LINE_HEIGHT:] = frame[-LINE_HEIGHT:] // 3
        _write(frame, caption, GAP, frame.shape[0] - GAP, TEXT, 0.4)


def _write(image: np.ndarray, text: str, left: int, baseline: int, colour, scale: float) -> None:
    cv2.putText(image, text, (left, baseline), FONT, scale, colour, 1, cv2.LINE_AA)
