"""A cost table of round numbers, for tests that need a machine's times without a machine."""

from __future__ import annotations

from collections.abc import Sequence

from deer_ros.budget.timing import CostTable, Milliseconds

HIGH = 1.5
"""The 99th percentile over the median, of everything."""


def cost_table(segments_ms: Sequence[float], interval: int = 2) -> CostTable:
    """Exits every `interval` layers; medians of the segments; other parts are a tenth of these."""

    def of(ms: float) -> Milliseconds:
        return Milliseconds(ms, HIGH * ms)

    layers = [of(ms / 10) for ms in segments_ms for _ in range(interval)]
    exits = [sum(segments_ms[: k + 1]) for k in range(len(segments_ms))]
    small = of(segments_ms[0] / 10)
    return CostTable(
        machine="none", device="cpu", dtype="float32", threads=1, prompt_tokens=6, steps=100,
        exit_layers=tuple(interval * (k + 1) for k in range(len(segments_ms))),
        preprocessing=small, vision=small, resampler=small, recurrent=small, head=small,
        layers=tuple(layers), segments=tuple(map(of, segments_ms)), exits=tuple(map(of, exits)),
    )  # fmt: skip
