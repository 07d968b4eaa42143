"""The search: what it is for, its trials, and whether what it found is better than the start."""

from __future__ import annotations

import dataclasses
import json
import logging
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from deer_ros.evaluation.statistics import Interval, paired_difference
from deer_ros.search.samplers import SAMPLERS, SeededByTrial
from deer_ros.search.scoring import Score, Scorer, checked
from deer_ros.search.space import Space
from deer_ros.search.start import Start
from deer_ros.search.storage import open_study

BUDGET = "cost within the budget"
WORDS = {
    "fingerprint": "model's fingerprint", "given": "start", "max_layer": "deepest layer",
    "held_out": "list of held-out seeds", "seeds": "list of seeds",
}
# Rounding of a mean must not decide.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Problem:
    """What is searched for: the same for all workers of a study, and whenever it is resumed.

    fingerprint: of the model's weights. scorer: its name. budget: upper limit of the average cost
    of a step; None: what the start costs. scope: what the cost counts. max_layer: the deepest
    permitted layer. seeds: of the trials' episodes, the same for all of them. held_out: of the
    episodes on which what was found is compared with the start. span: of the box around the start.
    given: thresholds that the user said to start from, or None.
    """

    fingerprint: str
    scorer: str
    budget: float | None
    scope: str
    max_layer: int
    seeds: tuple[int, ...]
    held_out: tuple[int, ...]
    span: float
    given: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.seeds or not self.held_out or set(self.seeds) & set(self.held_out):
            raise ValueError("there must be seeds, and others that are held out.")


@dataclass(frozen=True)
class Trial:
    """number: in the study. score: on the search's seeds."""

    number: int
    thresholds: tuple[float, ...]
    score: Score
    is_start: bool


@dataclass(frozen=True)
class Verdict:
    """What a search comes to.

    trials: of the study that are done. start, best: the trial that began it, and the best one
    within `limit`, the upper limit of the average cost on the search's seeds. taken: what to use.
    reason: why, as a sentence. held_out_start, held_out_best: their scores on other episodes, the
    same for both; None where the start itself is the best. difference: of their success in pairs,
    best less start. keeps_budget: whether `taken` does, on the held-out episodes if there are any.
    """

    trials: int
    start: Trial
    best: Trial
    limit: float
    taken: Trial
    reason: str
    held_out_start: Score | None = None
    held_out_best: Score | None = None
    difference: Interval | None = None
    keeps_budget: bool = True

    @property
    def cost(self) -> float:
        """Average cost of what is taken."""
        held_out = self.held_out_start if self.taken is self.start else self.held_out_best
        return (held_out or self.taken.score).cost


class Search:
    """One worker's part in a study."""

    def __init__(
        self,
        problem: Problem,
        model: Path,
        start: Start,
        space: Space,
        scorer: Scorer,
        storage: str | None = None,
        study: str = "deer",
        sampler: str = "gp",
        seed: int = 0,
    ) -> None:
        """Open the study, or join it: then the start and the space that it was made with hold.

        Raises ValueError where the study is about another problem, or cannot be opened.
        """
        # What optuna says belongs to a log, and the same is said by this command.
        optuna.logging.set_verbosity(logging.CRITICAL)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._model = model
        self._scorer = scorer
        self._study = open_study(storage, study, SeededByTrial(SAMPLERS[sampler], seed))
        self.problem = problem
        self.start, self.space = self._join(study, start, space)

    def run(self, trials: int) -> Iterator[Trial]:
        """Trials of this worker, as they are done, until the study has `trials` with the start.

        Whatever ends it, the trials that are done stay in the storage.
        """
        if self._first() is None:
            yield self._score_start()
        finished: list[FrozenTrial] = []
        while len(self.done()) < trials:
            self._study.optimize(
                self._objective, n_trials=1, callbacks=[lambda _, trial: finished.append(trial)]
            )
            yield _trial(finished[-1])

    def done(self) -> list[Trial]:
        """All trials of the study that are done, by number, the start once."""
        trials, has_start = [], False
        for stored in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
            trial = _trial(stored)
            if not (trial.is_start and has_start):
                trials.append(trial)
            has_start = has_start or trial.is_start
        return trials

    @property
    def limit(self) -> float:
        """Of the average cost on the search's seeds."""
        return self._first().score.cost if self.problem.budget is None else self.problem.budget

    def best(self) -> Trial:
        """Most success within the limit, then least cost; the start where none keeps the limit."""
        within = [t for t in self.done() if t.score.cost <= self.limit * (1 + TOLERANCE)]
        if not within:
            return self._first()
        return max(within, key=lambda t: (t.score.success, -t.score.cost, -t.number))

    def verdict(self) -> Verdict:
        """Compare the best trial with the start on held-out episodes, in pairs."""
        start, best, limit = self._first(), self.best(), self.limit
        if best.is_start:
            reason = "no trial within the budget did better than the start."
            verdict = Verdict(len(self.done()), start, best, limit, start, reason)
        else:
            theirs, ours = self._held_out(start), self._held_out(best)
            taken, reason = self._compared(start, theirs, best, ours)
            verdict = Verdict(
                len(self.done()), start, best, limit, taken, reason, theirs, ours,
                paired_difference([ours.successes], [theirs.successes]),
            )
        return verdict if self._keeps(verdict.cost) else dataclasses.replace(
            verdict,
            keeps_budget=False,
            reason=f"{verdict.reason} It costs {verdict.cost:.4g} a step, more than the budget of "
            f"{self.problem.budget:.4g}.",
        )

    def _compared(
        self, start: Trial, theirs: Score, best: Trial, ours: Score
    ) -> tuple[Trial, str]:
        """Which of the two to take, by their held-out scores, and why."""
        if len(ours.successes) != len(theirs.successes):
            raise ValueError(
                f"the scorer answered with {len(theirs.successes)} and {len(ours.successes)} "
                "successes for the same seeds; there must be as many."
            )
        if not self.start.solved and self._keeps(ours.cost) and not self._keeps(theirs.cost):
            return best, "on held-out episodes the best trial keeps the budget, the start does not."
        flaw = None
        if ours.success < theirs.success:
            flaw = "succeeds less often"
        elif not self._keeps(ours.cost):
            flaw = "costs more than the budget"
        elif self.problem.budget is None and ours.cost > theirs.cost * (1 + TOLERANCE):
            flaw = "costs more than the start"
        elif ours.success == theirs.success and ours.cost > theirs.cost:
            flaw = "succeeds no more often and costs more"
        if flaw:
            return start, f"on held-out episodes the best trial {flaw}; the start is kept."
        return best, "on held-out episodes too the best trial is at least as good as the start."

    def _keeps(self, cost: float) -> bool:
        budget = self.problem.budget
        return budget is None or cost <= budget * (1 + TOLERANCE)

    def _join(self, name: str, start: Start, space: Space) -> tuple[Start, Space]:
        asked = json.loads(json.dumps(dataclasses.asdict(self.problem)))
        found = self._study.user_attrs.get("problem")
        if found is None:
            if self._study.get_trials(deepcopy=False):
                raise ValueError(
                    f"the study {name!r} in this storage was not made by `deer search`; choose "
                    "another name with --study."
                )
            self._study.set_user_attr("start", dataclasses.asdict(start))
            self._study.set_user_attr("space", dataclasses.asdict(space))
            self._study.set_user_attr("problem", asked)
            # Another worker may have done the same in the meantime.
            found = self._study.user_attrs["problem"]
        for key, value in asked.items():
            if found.get(key) != value:
                raise ValueError(
                    f"the study {name!r} in this storage is of another search: its "
                    f"{WORDS.get(key, key)} is {_shown(found.get(key))}, and {_shown(value)} is "
                    "asked for. Choose another name with --study."
                )
        kept = self._study.user_attrs
        return Start(**_tuples(kept["start"])), Space(**_tuples(kept["space"]))

    def _first(self) -> Trial | None:
        return next((trial for trial in self.done() if trial.is_start), None)

    def _score_start(self) -> Trial:
        thresholds = self.start.thresholds
        score = self._score(thresholds, self.problem.seeds)
        limit = score.cost if self.problem.budget is None else self.problem.budget
        self._study.add_trial(create_trial(
            value=score.success,
            params=self.space.parameters(thresholds),
            distributions={
                name: FloatDistribution(low, high, log=True)
                for name, (low, high) in self.space.bounds.items()
            },
            user_attrs=_described(thresholds, score, is_start=True),
            constraints={BUDGET: _excess(score.cost, limit)},
        ))
        return self._first()

    def _objective(self, trial: optuna.Trial) -> float:
        parameters = {
            name: trial.suggest_float(name, low, high, log=True)
            for name, (low, high) in self.space.bounds.items()
        }
        thresholds = self.space.thresholds(self.start.thresholds, parameters)
        score = self._score(thresholds, self.problem.seeds)
        for key, value in _described(thresholds, score).items():
            trial.set_user_attr(key, value)
        trial.set_constraint(BUDGET, _excess(score.cost, self.limit))
        return score.success

    def _held_out(self, trial: Trial) -> Score:
        """A trial's score on the held-out seeds, kept in the study."""
        key = f"held out {trial.number}"
        if key not in self._study.user_attrs:
            score = self._score(trial.thresholds, self.problem.held_out)
            self._study.set_user_attr(key, dataclasses.asdict(score))
        kept = self._study.user_attrs[key]
        return Score(tuple(kept["successes"]), kept["cost"])

    def _score(self, thresholds: tuple[float, ...], seeds: tuple[int, ...]) -> Score:
        problem = self.problem
        try:
            answer = self._scorer(
                self._model, thresholds, self.start.metric, problem.max_layer, seeds
            )
        except Exception as error:  # a user's own code raises what it likes
            where = traceback.extract_tb(error.__traceback__)[-1]
            raise ValueError(
                f"the scorer {problem.scorer} failed in {where.filename}, line {where.lineno}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return checked(answer, problem.scorer)


def _excess(cost: float, limit: float) -> float:
    """Above 0 where the limit is exceeded, as a share of it."""
    return cost / limit - 1 - TOLERANCE if limit else cost


def _described(
    thresholds: tuple[float, ...], score: Score, is_start: bool = False
) -> dict[str, Any]:
    return {
        "thresholds": list(thresholds), "success": score.success, "cost": score.cost,
        "is_start": is_start,
    }


def _trial(stored: FrozenTrial) -> Trial:
    kept = stored.user_attrs
    return Trial(
        stored.number, tuple(kept["thresholds"]), Score((kept["success"],), kept["cost"]),
        kept["is_start"],
    )


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON made lists of."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
