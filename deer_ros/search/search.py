"""One worker's part in a search: a study of trials, each scored on the same episodes."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import FloatDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from deer_ros.search.problem import TOLERANCE, Problem, Trial
from deer_ros.search.samplers import SAMPLERS, SeededByTrial
from deer_ros.search.scoring import Score, Scorer, check_gflops, scored
from deer_ros.search.space import Space
from deer_ros.search.start import Start
from deer_ros.search.storage import LostError, kept, open_study
from deer_ros.search.verdict import Verdict, judge, ranked

BUDGET = "cost within the budget"
WORDS = {
    "fingerprint": "model's fingerprint", "given": "start", "max_layer": "deepest layer",
    "held_out": "list of held-out seeds", "seeds": "list of seeds",
}


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
        possible: tuple[float, float] | None = None,
    ) -> None:
        """Open the study, or join it: then the start and the space that it was made with hold.

        possible: the least and the most that a step can cost; a score outside is refused, as it is
        in another unit than the budget. None: all are taken. Raises ValueError where the study is
        about another problem, or cannot be opened.
        """
        # What optuna says belongs to a log, and the same is said by this command.
        optuna.logging.set_verbosity(logging.CRITICAL)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._model = model
        self._scorer = scorer
        self._possible = possible
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
        while (before := len(self.done())) < trials:
            self._study.optimize(
                self._objective, n_trials=1, callbacks=[lambda _, trial: finished.append(trial)]
            )
            if len(self.done()) <= before:  # or this would go on for ever
                raise LostError("a trial was written into it and is gone")
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

    def best(self) -> Trial:
        """Most success within the budget, then least cost; the start where none does better."""
        start = self._first()
        return next(iter(ranked(self.problem, self.done(), start)), start)

    def verdict(self) -> Verdict:
        """What the search comes to; runs episodes on the held-out seeds."""
        verdict = None
        # Other workers may have finished trials in the meantime.
        while verdict is None or verdict.trials < len(self.done()):
            verdict = judge(
                self.problem, self.start.solved, self.done(), self._first(), self._held_out
            )
        return verdict

    def _join(self, name: str, start: Start, space: Space) -> tuple[Start, Space]:
        asked = json.loads(json.dumps(dataclasses.asdict(self.problem)))
        found = self._study.user_attrs.get("problem")
        # One that minimises would be searched for the worst.
        ours = self._study.directions == [StudyDirection.MAXIMIZE]
        if ours and found is None and not self._study.get_trials(deepcopy=False):
            self._study.set_user_attr("start", dataclasses.asdict(start))
            self._study.set_user_attr("space", dataclasses.asdict(space))
            self._study.set_user_attr("problem", asked)
            # Another worker may have done the same in the meantime.
            found = kept(self._study.user_attrs, "problem")
        if not (ours and isinstance(found, dict)):
            raise ValueError(
                f"the study {name!r} in this storage was not made by `deer search`; choose "
                "another name with --study."
            )
        for key, value in asked.items():
            if found.get(key) != value:
                raise ValueError(
                    f"the study {name!r} in this storage is of another search: its "
                    f"{WORDS.get(key, key)} is {_shown(found.get(key))}, and {_shown(value)} is "
                    "asked for. Choose another name with --study."
                )
        attributes = self._study.user_attrs
        return Start(**_tuples(kept(attributes, "start"))), Space(
            **_tuples(kept(attributes, "space"))
        )

    def _first(self) -> Trial | None:
        return next((trial for trial in self.done() if trial.is_start), None)

    def _score_start(self) -> Trial:
        thresholds = self.start.thresholds
        score = self._score(thresholds, self.problem.seeds)
        self._study.add_trial(create_trial(
            value=score.success,
            params=self.space.parameters(thresholds),
            distributions={
                name: FloatDistribution(low, high, log=True)
                for name, (low, high) in self.space.bounds.items()
            },
            user_attrs=_described(thresholds, score, is_start=True),
            constraints={BUDGET: self._excess(score.cost, score.cost)},
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
        trial.set_constraint(BUDGET, self._excess(score.cost, self._first().score.cost))
        return score.success

    def _excess(self, cost: float, start_cost: float) -> float:
        """Above 0 where the budget is exceeded, as a share of it."""
        limit = start_cost if self.problem.budget is None else self.problem.budget
        return cost / limit - 1 - TOLERANCE if limit else cost

    def _held_out(self, trial: Trial) -> Score:
        """A trial's score on the held-out seeds, kept in the study."""
        key = f"held out {trial.number}"
        if key not in self._study.user_attrs:
            score = self._score(trial.thresholds, self.problem.held_out)
            self._study.set_user_attr(key, dataclasses.asdict(score))
        found = kept(self._study.user_attrs, key)
        return Score(tuple(found["successes"]), found["cost"])

    def _score(self, thresholds: tuple[float, ...], seeds: tuple[int, ...]) -> Score:
        problem = self.problem
        score = scored(
            self._scorer, problem.scorer, self._model, thresholds, self.start.metric,
            problem.max_layer, seeds,
        )
        if self._possible is not None:
            check_gflops(score.cost, problem.scorer, problem.scope, self._possible)
        return score


def _described(
    thresholds: tuple[float, ...], score: Score, is_start: bool = False
) -> dict[str, Any]:
    return {
        "thresholds": list(thresholds), "success": score.success, "cost": score.cost,
        "is_start": is_start,
    }


def _trial(stored: FrozenTrial) -> Trial:
    thresholds, success, cost, is_start = (
        kept(stored.user_attrs, key) for key in ("thresholds", "success", "cost", "is_start")
    )
    return Trial(stored.number, tuple(thresholds), Score((success,), cost), is_start)


def _tuples(values: dict[str, Any]) -> dict[str, Any]:
    """What JSON made lists of."""
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
