"""Searches with a scorer whose best thresholds are known."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import synthetic_scorer
import torch
from synthetic_scorer import BEST, chance, cost

from deer_ros.search.problem import Problem
from deer_ros.search.scoring import checked, load_scorer
from deer_ros.search.search import Search
from deer_ros.search.space import Space
from deer_ros.search.start import Start

START = Start((*synthetic_scorer.START, 1e8), "l2", solved=False)
PROBLEM = Problem(
    fingerprint="weights", scorer="synthetic", budget=None, scope="llm", max_layer=6,
    seeds=tuple(range(5)), held_out=tuple(range(5, 15)), span=4.0,
)


def search(
    scorer=synthetic_scorer.score, problem=PROBLEM, start=START, sampler="tpe", **options
) -> Search:
    space = Space.around(start.thresholds, (0, 1), problem.span)
    return Search(problem, Path("model"), start, space, scorer, sampler=sampler, **options)


def finished(trials: int, **options) -> Search:
    found = search(**options)
    list(found.run(trials))
    return found


@pytest.mark.parametrize(("sampler", "trials"), [("tpe", 40), ("gp", 16)])
def test_the_best_thresholds_are_approached_within_the_budget(sampler, trials):
    found = finished(trials, sampler=sampler)
    verdict = found.verdict()
    assert len(found.done()) == trials == verdict.trials
    assert not verdict.taken.is_start and verdict.keeps_budget
    assert cost(verdict.taken.thresholds) <= cost(START.thresholds) + 1e-6
    assert chance(START.thresholds) < 0.77
    assert chance(verdict.taken.thresholds) > 0.85
    assert verdict.difference.low > 0


def test_the_same_seed_gives_the_same_trials_and_another_one_others():
    ours, again, other = (
        [t.thresholds for t in finished(12, seed=seed).done()] for seed in (3, 3, 4)
    )
    assert ours == again
    assert ours[0] == other[0] == START.thresholds
    assert not set(ours[1:]) & set(other[1:])


@pytest.mark.parametrize("scorer", [synthetic_scorer.score, synthetic_scorer.luck])
def test_what_is_taken_is_never_worse_than_the_start_whatever_the_seeds(scorer):
    taken = set()
    for seed in range(12):
        problem = dataclasses.replace(
            PROBLEM, seeds=(100 * seed,), held_out=(100 * seed + 1, 100 * seed + 2)
        )
        verdict = finished(10, scorer=scorer, problem=problem, seed=seed).verdict()
        theirs, ours = (
            checked(scorer(None, t, "l2", 6, problem.held_out), "")
            for t in (START.thresholds, verdict.taken.thresholds)
        )
        assert ours.success >= theirs.success and ours.cost <= theirs.cost + 1e-9
        taken.add(verdict.taken.is_start)
    assert taken == {True, False} or scorer is synthetic_scorer.score


def test_a_start_that_cannot_be_bettered_is_kept():
    start = dataclasses.replace(START, thresholds=(*BEST, 1e8))
    verdict = finished(10, start=start).verdict()
    assert verdict.taken.thresholds == start.thresholds


@pytest.mark.parametrize("storage", ["sqlite:///{}/study.db", "{}/journal"])
def test_a_study_goes_on_where_it_was_left_and_others_find_the_same(tmp_path, storage):
    storage = storage.format(tmp_path)
    once = search(storage=storage)
    for _ in zip(once.run(20), range(5)):
        pass
    left = len(once.done())
    assert 5 <= left < 20
    calls = []

    def counted(model, thresholds, *rest):
        calls.append(thresholds)
        return synthetic_scorer.score(model, thresholds, *rest)

    again = finished(20, scorer=counted, storage=storage)
    assert len(calls) == 20 - left
    verdict = again.verdict()
    held_out = len(calls)
    assert search(storage=storage).verdict() == verdict
    assert again.verdict() == verdict and len(calls) == held_out, "nothing is run twice"


def test_who_joins_a_study_takes_its_start(tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    finished(3, storage=storage)
    # Since then the model's own thresholds have changed.
    later = dataclasses.replace(START, thresholds=(0.3, 0.3, 1e8))
    joined = search(start=later, storage=storage)
    assert joined.start == START
    assert joined.space == Space.around(START.thresholds, (0, 1), 4.0)


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> str:
    """A storage with a study of two trials."""
    storage = f"sqlite:///{tmp_path_factory.mktemp('storage')}/study.db"
    finished(2, storage=storage)
    return storage


@pytest.mark.parametrize(("change", "words"), [
    ({"fingerprint": "others"}, "model's fingerprint is weights"),
    ({"budget": 7.5}, "its budget is None, and 7.5 is asked for"),
    ({"scope": "step"}, "its scope is llm"),
    ({"scorer": "mine:score"}, "its scorer is synthetic"),
    ({"max_layer": 4}, "its deepest layer is 6"),
    ({"seeds": (20, 21)}, "its list of seeds is"),
    ({"held_out": (20, 21)}, "its list of held-out seeds is"),
    ({"span": 2.0}, "its span is 4.0"),
    ({"given": (0.1, 0.1, 1e8)}, "its start is None"),
    ({"cadence": "every 2 steps"}, "its cadence is every step, and every 2 steps is asked for"),
])
def test_a_study_of_another_search_is_refused_and_stays_as_it_was(kept, change, words):
    other = dataclasses.replace(PROBLEM, **change)
    with pytest.raises(ValueError, match=f"{words}.*another name with --study"):
        search(problem=other, storage=kept)
    assert search(problem=other, storage=kept, study=words).done() == []
    assert len(search(storage=kept).done()) == 2


def test_a_study_that_is_no_search_of_ours_is_refused(tmp_path):
    import optuna

    storage = f"sqlite:///{tmp_path}/study.db"
    study = optuna.create_study(storage=storage, study_name="deer")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(ValueError, match="was not made by `deer search`"):
        search(storage=storage)


@pytest.mark.parametrize("storage", [
    "sqlite:///{}/no/study.db", "sqlite:///{}/text", "{}/text", "{}/no/journal", "oracel://{}",
])
def test_a_storage_that_cannot_be_used_is_one_sentence(tmp_path, storage):
    (tmp_path / "text").write_text("this is neither a database nor a journal\n" * 100)
    with pytest.raises(ValueError, match="the storage .* cannot be used: .*Name a database") as e:
        search(storage=storage.format(tmp_path))
    assert "\n" not in str(e.value)
    assert (tmp_path / "text").read_text().startswith("this is neither")


# What scorers answer


@pytest.mark.parametrize("answer", [
    None, 0.5, (0.5,), (0.5, 1.0, 2.0), ("often", 1.0), (0.5, "little"), (float("nan"), 1.0),
    ([], 1.0), ([[1.0], [0.0]], 1.0), ([1.0, float("inf")], 1.0), (0.5, float("nan")),
    (0.5, -1.0), (0.5, float("inf")), {float("nan"): 0.5, 1.0: 0.5},
    iter((float("nan"), 1.0)), (10**400, 1.0), (0.5, 10**400), ([float("nan")] * 10**4, 1.0),
    pytest.param((torch.ones(2, requires_grad=True), 1.0), id="a tensor that learns"),
])
def test_an_answer_that_is_no_score_is_refused_and_ends_the_search(answer):
    with pytest.raises(ValueError, match="the scorer synthetic answered") as raised:
        finished(3, scorer=lambda *arguments: answer)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 400


def test_a_mean_alone_is_a_score_too():
    def mean(*arguments):
        successes, cost = synthetic_scorer.score(*arguments)
        return successes.mean(), cost

    verdict = finished(10, scorer=mean).verdict()
    assert len(verdict.held_out_start.successes) == 1


def test_a_scorer_that_fails_is_told_with_its_line_and_the_trials_stay(tmp_path):
    calls = []

    def fails_later(*arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise RuntimeError("the simulator fell over")
        return synthetic_scorer.score(*arguments)

    found = search(scorer=fails_later, storage=f"sqlite:///{tmp_path}/study.db")
    with pytest.raises(ValueError, match=r"test_search.py, line \d+: RuntimeError: the simulator"):
        list(found.run(10))
    assert len(found.done()) == 3
    assert len(list(found.run(5))) == 2


class Untold(Exception):
    def __str__(self) -> str:
        raise RuntimeError("has no words")


@pytest.mark.parametrize(("raised", "words"), [
    (RuntimeError("one\ntwo\n\nthree"), "RuntimeError: one two three"), (Untold(), "Untold"),
    (SystemExit(0), "SystemExit: 0"), (KeyError("k"), "KeyError: 'k'"),
])
def test_whatever_a_scorer_raises_is_one_sentence_and_no_end_of_ours(raised, words):
    def fails(*arguments):
        raise raised

    with pytest.raises(ValueError, match=rf"test_search.py, line \d+: {words}$"):
        finished(3, scorer=fails)


def test_an_interrupted_scorer_interrupts_the_search():
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finished(3, scorer=interrupted)


@pytest.mark.parametrize(("source", "words"), [
    ("def score(:", r"cannot be imported: SyntaxError: .*\(a_module.py, line 1\)"),
    ("raise RuntimeError('no robot\\nhere')", "cannot be imported: RuntimeError: no robot here"),
    ("import sys; sys.exit(0)", "cannot be imported: SystemExit: 0"),
    ("import no_such_dependency", "cannot be imported: .*no_such_dependency"),
    ("def __getattr__(name): raise RuntimeError(name)", "cannot be imported: RuntimeError: score"),
    ("async def score(*arguments): return 1, 1", "is an async function"),
])
def test_a_scorers_module_that_is_wrong_is_one_sentence(tmp_path, monkeypatch, source, words):
    (tmp_path / "a_module.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "a_module", raising=False)
    with pytest.raises(ValueError, match=words) as raised:
        load_scorer("a_module:score")
    assert "\n" not in str(raised.value)


def test_a_scorer_is_named_by_its_module_and_function():
    assert load_scorer("synthetic_scorer:score") is synthetic_scorer.score
    for name, words in (
        ("synthetic_scorer", "package.module:function"), (":score", "package.module:function"),
        (".:score", "package.module:function"), (".x:score", "package.module:function"),
        ("no_such_module:score", "cannot be imported"),
        ("synthetic_scorer:no_such", "no function no_such"),
        ("synthetic_scorer:START", "no function START"),
    ):
        with pytest.raises(ValueError, match=words):
            load_scorer(name)
