"""Whether what a search found is better than what it started from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from deer_ros.evaluation.statistics import Interval, paired_difference
from deer_ros.search.problem import Problem, Trial
from deer_ros.search.scoring import Score

# The very best owes something to luck, and often lies so close to the budget that other episodes
# exceed it: then the next ones have their chance.
CANDIDATES = 3


@dataclass(frozen=True)
class Verdict:
    """What a search comes to.

    trials: of the study that are done. start, best: the trial that began it, and the best one.
    taken: which of them to use. reason: why, as a sentence. held_out_start, held_out_best: their
    scores on other episodes, the same for both; None where no trial did better than the start.
    difference: of their success in pairs, best less start. keeps_budget: whether `taken` does, on
    the held-out episodes if there are any.
    """

    trials: int
    start: Trial
    best: Trial
    taken: Trial
    reason: str
    keeps_budget: bool
    held_out_start: Score | None = None
    held_out_best: Score | None = None
    difference: Interval | None = None

    @property
    def held_out(self) -> Score | None:
        """Of what is taken."""
        return self.held_out_start if self.taken.is_start else self.held_out_best

    def to_json(self) -> dict[str, Any]:
        """All but the thresholds' meaning."""
        return {
            "taken": "start" if self.taken.is_start else "best trial",
            "reason": self.reason,
            "keeps_budget": self.keeps_budget,
            "trials": self.trials,
            "start": _described(self.start, self.held_out_start),
            "best": _described(self.best, self.held_out_best),
            "held_out_difference": None if self.difference is None else vars(self.difference),
        }


def ranked(problem: Problem, trials: Sequence[Trial], start: Trial) -> list[Trial]:
    """Trials that keep the budget, the best first: by success, then by cost. Up to the start."""
    within = [t for t in trials if problem.keeps(t.score.cost, start.score.cost)]
    within.sort(key=lambda t: (-t.score.success, t.score.cost, not t.is_start, t.number))
    return within[: within.index(start)] if start in within else within


def judge(
    problem: Problem,
    solved: bool,
    trials: Sequence[Trial],
    start: Trial,
    held_out: Callable[[Trial], Score],
) -> Verdict:
    """Compare the best trials with the start on held-out episodes, in pairs.

    The first that succeeds at least as often, within the budget, is taken; the start if none does.
    A start that was not `solved` for the budget and exceeds it there gives way to any that keeps
    it. held_out: runs a trial's thresholds on the held-out seeds.
    """
    candidates = ranked(problem, trials, start)[:CANDIDATES]
    if not candidates:
        reason = "no trial within the budget did better than the start."
        return _verdict(problem, len(trials), start, start, start, reason)
    theirs = held_out(start)
    must_keep = solved or problem.keeps(theirs.cost, theirs.cost)
    flaws = []
    for candidate in candidates:
        ours = held_out(candidate)
        flaw = _flaw(problem, ours, theirs, must_keep)
        if flaw is None:
            return _verdict(
                problem, len(trials), start, candidate, candidate,
                "on held-out episodes too it is at least as good as the start." if must_keep
                else "on held-out episodes it keeps the budget, and the start does not.",
                theirs, ours,
            )
        flaws.append(flaw)
    best = candidates[0]
    reason = f"on held-out episodes the best trial {flaws[0]}"
    if len(flaws) > 1:
        reason += f", and the next {len(flaws) - 1} are no better than the start either"
    return _verdict(
        problem, len(trials), start, best, start, f"{reason}.", theirs, held_out(best)
    )


def _flaw(problem: Problem, ours: Score, theirs: Score, start_counts: bool) -> str | None:
    """Why `ours` is not at least as good as `theirs`, or None."""
    if len(ours.successes) != len(theirs.successes):
        raise ValueError(
            f"the scorer answered with {len(theirs.successes)} and {len(ours.successes)} successes "
            "for the same seeds; there must be as many."
        )
    if not problem.keeps(ours.cost, theirs.cost):
        return "costs more than the budget"
    if not start_counts:
        return None
    if ours.success < theirs.success:
        return "succeeds less often than the start"
    if ours.success == theirs.success and ours.cost > theirs.cost:
        return "succeeds no more often than the start and costs more"
    return None


def _verdict(
    problem: Problem,
    trials: int,
    start: Trial,
    best: Trial,
    taken: Trial,
    reason: str,
    theirs: Score | None = None,
    ours: Score | None = None,
) -> Verdict:
    score = (theirs if taken.is_start else ours) or taken.score
    keeps = problem.keeps(score.cost, score.cost)
    if not keeps:
        reason += (
            f" The start costs {score.cost:.4g} a step, more than the budget of "
            f"{problem.budget:.4g}: start from a cheaper one, see --start."
        )
    difference = paired_difference([ours.successes], [theirs.successes]) if ours else None
    return Verdict(trials, start, best, taken, reason, keeps, theirs, ours, difference)


def _described(trial: Trial, held_out: Score | None) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "thresholds": list(trial.thresholds),
        **trial.score.to_json(),
        "held_out": None if held_out is None else held_out.to_json(),
    }
