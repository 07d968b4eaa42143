"""Thresholds as the authors' solver gives them."""

from __future__ import annotations

import golden_data
import numpy as np
import pytest

from deer_ros.budget.solver import family_shares, leaving, thresholds_for

FAMILIES = {"exp": "exponential", "gauss": "gaussian", "gamma": "gamma"}
CASES = golden_data.text("thresholds")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_solver_gives_the_authors_thresholds_to_the_last_digit(family):
    cases = [case for case in CASES if case["distribution"] == family]
    assert cases
    for case in cases:
        exits = len(case["layers_with_threshold"])
        deltas = golden_data.arrays("thresholds")[case["values"]][:exits]
        shares = family_shares(
            FAMILIES[family], case["ratio"], exits, first_exit=not case["first_exit_disabled"]
        )
        thresholds = thresholds_for(deltas, shares)
        assert thresholds.tolist() == np.float32(case["thresholds"]).tolist(), case
        assert leaving(deltas, thresholds).tolist() == case["samples_leaving_at_exit"], case
