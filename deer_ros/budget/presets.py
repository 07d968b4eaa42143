"""Exit rules that the authors published, by name.

Thresholds are those found by interaction with CALVIN, one list per training split, for the 3B model
with 12 layers; DeeR-S and DeeR-B are the paper's two depths of each model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Part of an exit rule. max_layer: deepest layer. thresholds: one per exit up to it, or None:
    the model's own."""

    max_layer: int
    thresholds: tuple[float, ...] | None = None
    metric: str = "l2"


PRESETS = {
    "deer-s-3b": Preset(max_layer=4),
    "deer-b-3b": Preset(max_layer=12),
    "deer-s-9b": Preset(max_layer=8),
    "deer-b-9b": Preset(max_layer=12),
    "calvin-d": Preset(12, (
        0.024131965307197703, 0.0034394217427938887, 0.00701889456063509,
        0.009184207905083895, 0.0045967466905420615, 100000.0,
    )),
    "calvin-abc": Preset(12, (
        0.05618929907679558, 0.003506983596128319, 0.00584903010905957,
        0.006535238670344992, 0.005207180260029222, 100000.0,
    )),
    "calvin-abcd": Preset(12, (
        0.03354664587378331, 0.002466938924360549, 0.006321195199122956,
        0.005748750398084137, 0.007737060680985451, 100000.0,
    )),
}


def find_preset(name: str) -> Preset:
    """The preset of that name. A ValueError lists them."""
    if name not in PRESETS:
        raise ValueError(f"there is no preset {name!r}; there are {', '.join(PRESETS)}.")
    return PRESETS[name]
