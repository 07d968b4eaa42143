"""How a recording is read: names of topics, and rules by which frames and episodes are formed."""

from __future__ import annotations

from dataclasses import dataclass

from deer_ros.data.bag_topics import Names


@dataclass(frozen=True)
class BagInputs:
    """What of a recording is what, and which pictures belong together: as the node has it.

    names: of the topics. transport: `raw` or `compressed` pictures; None: what is there.
    max_skew_s: of two pictures of a frame. gap_s: a longer time between pictures ends an episode.
    rate_hz: frames per second at most; 0: all. frame_id: what the robot calls the fixed frame of
    poses and velocities. instruction: instead of those in the bags. first_instruction: until one
    comes. Empty texts are none.
    """

    names: Names = Names()
    transport: str | None = None
    max_skew_s: float = 0.05
    gap_s: float = 0.5
    rate_hz: float = 0.0
    frame_id: str = "base_link"
    instruction: str = ""
    first_instruction: str = ""


AS_DELIVERED = BagInputs()
"""Names and rules that nobody has changed."""
