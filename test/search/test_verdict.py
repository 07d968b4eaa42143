"""When a search's best trial is taken, and when its start is."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deer_ros.search.problem import Problem, Trial
from deer_ros.search.scoring import Score
from deer_ros.search.verdict import CANDIDATES, judge, ranked

PROBLEM = Problem("weights", "scorer", 5.0, "llm", 6, (0, 1), (2, 3), 4.0)

successes = st.lists(st.sampled_from([0.0, 1.0]), min_size=4, max_size=4).map(tuple)
scores = st.builds(Score, successes, st.floats(0, 10))


def trial(number: int, success: float, cost: float) -> Trial:
    return Trial(number, (float(number), 1e8), Score((success,), cost), number == 0)


@given(st.lists(scores, min_size=1, max_size=8), st.lists(scores, min_size=8, max_size=8),
       st.booleans(), st.sampled_from([5.0, None]))
def test_what_is_taken_is_never_worse_than_the_start_on_held_out_episodes(
    found, held_out, solved, budget
):
    problem = dataclasses.replace(PROBLEM, budget=budget)
    trials = [Trial(n, (0.1, 1e8), score, n == 0) for n, score in enumerate(found)]
    verdict = judge(problem, solved, trials, trials[0], lambda t: held_out[t.number])
    theirs, ours = held_out[0], held_out[verdict.taken.number]
    assert verdict.reason.endswith(".")
    if verdict.taken.is_start:
        assert verdict.keeps_budget or budget is not None
        return
    assert verdict.held_out == ours
    assert ours.cost <= (theirs.cost if budget is None else budget) * (1 + 1e-9)
    assert verdict.keeps_budget
    if solved or budget is None or theirs.cost <= budget:
        assert ours.success >= theirs.success
        assert ours.success > theirs.success or ours.cost <= theirs.cost


def test_trials_beyond_the_budget_do_not_count():
    trials = [trial(0, 0.5, 4.0), trial(1, 0.9, 5.1), trial(2, 0.6, 5.0), trial(3, 0.6, 3.0)]
    assert [t.number for t in ranked(PROBLEM, trials, trials[0])] == [3, 2]
    own = dataclasses.replace(PROBLEM, budget=None)
    assert [t.number for t in ranked(own, trials, trials[0])] == [3]


def test_the_next_best_is_taken_where_the_best_exceeds_the_budget_on_other_episodes():
    trials = [trial(0, 0.5, 4.0), *(trial(n, 0.9 - 0.1 * n, 4.9) for n in range(1, 5))]
    costs = {0: 4.0, 1: 5.2, 2: 4.9, 3: 5.1}
    verdict = judge(PROBLEM, True, trials, trials[0], lambda t: Score((0.6,), costs[t.number]))
    assert verdict.taken.is_start, "others succeed as often and cost more"
    costs[2] = 3.9
    verdict = judge(PROBLEM, True, trials, trials[0], lambda t: Score((0.6,), costs[t.number]))
    assert verdict.taken.number == verdict.best.number == 2


def test_no_more_than_a_few_trials_have_their_chance():
    trials = [trial(0, 0.1, 4.0), *(trial(n, 0.5, n / 10) for n in range(1, 20))]
    asked = []
    judge(PROBLEM, True, trials, trials[0],
          lambda t: asked.append(t.number) or Score((0.5 * t.is_start,), 1.0))
    assert set(asked) == {0, *range(1, CANDIDATES + 1)}


def test_a_start_that_was_solved_stays_though_it_exceeds_the_budget_and_that_is_said():
    trials = [trial(0, 0.9, 5.0), trial(1, 0.95, 4.0)]
    answers = {0: Score((1.0, 1.0), 5.5), 1: Score((1.0, 0.0), 4.0)}
    kept = judge(PROBLEM, True, trials, trials[0], lambda t: answers[t.number])
    assert kept.taken.is_start and not kept.keeps_budget
    assert "succeeds less often" in kept.reason and "more than the budget of 5" in kept.reason
    assert kept.difference.estimate == -0.5
    given_way = judge(PROBLEM, False, trials, trials[0], lambda t: answers[t.number])
    assert given_way.taken.number == 1 and given_way.keeps_budget
    assert "the start does not" in given_way.reason


def test_without_a_better_trial_nothing_is_run_again():
    trials = [trial(0, 0.9, 4.0), trial(1, 0.9, 4.0), trial(2, 1.0, 6.0)]
    verdict = judge(PROBLEM, True, trials, trials[0], lambda t: pytest.fail("was run"))
    assert verdict.taken is verdict.best is trials[0] and verdict.keeps_budget
    assert verdict.to_json()["best"]["held_out"] is None


def test_a_scorer_that_answers_with_other_numbers_of_episodes_is_found_out():
    trials = [trial(0, 0.5, 4.0), trial(1, 0.9, 4.0)]
    with pytest.raises(ValueError, match="2 and 3 successes for the same seeds"):
        judge(PROBLEM, True, trials, trials[0], lambda t: Score((1.0,) * (2 + t.number), 1.0))


def test_held_out_seeds_are_others():
    with pytest.raises(ValueError, match="held out"):
        dataclasses.replace(PROBLEM, held_out=(1, 2))
