"""Names in a parameter file that no node has: ROS drops them without a word."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from deer_ros.stepping.settings import ROWS

# No other node's parameters begin by these, so whoever writes one of them means the policy.
OWN_GROUPS = ("budget", "episode", "exit", "safety")
# Of a file for several nodes most names are other nodes': below this likeness (difflib's ratio) a
# name is taken for one of those.
LIKENESS = 0.92


def misspelled(names: Iterable[str]) -> dict[str, str]:
    """A sentence for every name that must mean a parameter of the policy node and is none."""
    found = {}
    for name in names:
        if name in ROWS:
            continue
        likeness = 0.0 if name.split(".")[0] in OWN_GROUPS and "." in name else LIKENESS
        closest = get_close_matches(name, ROWS, 1, likeness)
        if closest:
            found[name] = (
                f"{name} is no parameter of the policy node; the one that is called most alike is "
                f"{closest[0]}."
            )
    return found
