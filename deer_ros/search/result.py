"""What a search found, as it is told and kept."""

from __future__ import annotations

from typing import Any

from deer_ros.checkpoint.thresholds import SearchedThresholds
from deer_ros.search.problem import SCORERS_OWN
from deer_ros.search.search import Search
from deer_ros.search.verdict import Verdict


def told(search: Search, verdict: Verdict) -> dict[str, Any]:
    """What `deer search --json` prints, but for the file."""
    problem = search.problem
    own_unit = problem.scope == SCORERS_OWN
    return {
        "by": "deer search",
        "scorer": problem.scorer,
        "average_gflops": None if own_unit else problem.budget,
        "average_cost": problem.budget if own_unit else None,
        "scope": problem.scope,
        "seeds": list(problem.seeds),
        "held_out_seeds": list(problem.held_out),
        "thresholds": list(verdict.taken.thresholds),
        "metric": search.start.metric,
        "max_layer": problem.max_layer,
        **verdict.to_json(),
    }


def to_keep(
    search: Search, verdict: Verdict, exit_layers: tuple[int, ...], facts: dict[str, Any]
) -> SearchedThresholds:
    """The thresholds that are taken, with how they were found. facts: what `told` says."""
    made = {key: value for key, value in facts.items() if key not in ("thresholds", "metric")}
    return SearchedThresholds(
        exit_layers, verdict.taken.thresholds, search.start.metric, search.problem.fingerprint,
        made,
    )
