"""Evaluations between training steps: they see the present model and change nothing."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from made_up_runs import Recorder, config, made_up_episodes
from safetensors.torch import load_file
from tiny_model import tiny_config

from deer_ros.policy import DeerPolicy
from deer_ros.report.json_lines import append_line, read_lines
from deer_ros.training.config import EvaluationHook, GatePhase
from deer_ros.training.evaluation import Evaluations
from deer_ros.training.run import TrainingRun


def hooked(**hook):
    return dataclasses.replace(config(), evaluation=EvaluationHook(**hook))


class Evaluator:
    """Uses up random numbers, as a simulator would, and answers what it was told to."""

    def __init__(self, *successes: float) -> None:
        self.successes = iter(successes)
        self.seen: list[dict[str, torch.Tensor]] = []

    def __call__(self, model) -> dict[str, float]:
        DeerPolicy.from_pretrained(model, device="cpu")
        torch.rand(7), np.random.rand(7), torch.manual_seed(99)
        self.seen.append(load_file(model / "model.safetensors"))
        return self.answer(model)

    def answer(self, model) -> dict[str, float]:
        success = next(self.successes)
        return {"success": success, "success_exit_6": success}


def test_losses_are_the_same_with_and_without_evaluations(tmp_path):
    plain = Recorder()
    TrainingRun(config(), made_up_episodes(), tmp_path / "plain", plain)()
    lines: list[tuple] = []

    def report(phase, step, steps, figures):
        lines.append((phase, step, figures))

    evaluator = Evaluator(0.2, 0.8, 0.5, 0.1)
    TrainingRun(
        hooked(every_steps=2), made_up_episodes(), tmp_path / "hooked", report, evaluate=evaluator
    )()
    trained = {(p, s): f for p, s, f in lines if "evaluation_success" not in f}
    assert trained == plain.lines
    found = [(p, s, f) for p, s, f in lines if "evaluation_success" in f]
    assert [(p, s) for p, s, _ in found] == [
        ("policy", 2), ("policy", 4), ("policy", 6), ("heads", 2)
    ]
    assert found[1][2] == {"evaluation_success": 0.8, "evaluation_success_exit_6": 0.8}
    written = read_lines(tmp_path / "hooked" / "evaluation.jsonl")
    assert [line["success"] for line in written] == [0.2, 0.8, 0.5, 0.1]
    assert not (tmp_path / "hooked" / "best").exists()


def test_the_best_model_is_kept_and_of_equal_ones_the_last(tmp_path):
    evaluator = Evaluator(0.2, 0.8, 0.8, 0.1)
    run = TrainingRun(
        hooked(every_steps=2, keep_best=True), made_up_episodes(), tmp_path, Recorder(),
        evaluate=evaluator,
    )  # fmt: skip
    last = load_file(run() / "model.safetensors")
    best = load_file(tmp_path / "best" / "model.safetensors")
    assert all(torch.equal(best[name], evaluator.seen[2][name]) for name in best)
    assert any(not torch.equal(best[name], last[name]) for name in best)


def test_the_best_model_has_the_gate_that_was_trained_for_it(tmp_path):
    head = dataclasses.replace(tiny_config().head, gate_width=16)
    asked = dataclasses.replace(
        hooked(every_steps=6, keep_best=True), model=tiny_config(head=head),
        gate=GatePhase(steps=3, batch_windows=2, warmup_steps=1),
    )  # fmt: skip
    evaluator = Evaluator(0.2, 0.8, 0.8)
    last = TrainingRun(asked, made_up_episodes(), tmp_path, Recorder(), evaluate=evaluator)()
    best = load_file(tmp_path / "best" / "model.safetensors")
    assert torch.equal(
        best["head.gate.out.weight"], load_file(last / "model.safetensors")["head.gate.out.weight"]
    )


@pytest.mark.parametrize(("successes", "kept"), [
    ((0.9, 0.3, 0.2, 0.5, 0.4), [1, 3]),  # the first could not be kept
    ((0.1, 0.3, 0.3), [1, 2]),
])
def test_the_best_of_those_that_could_be_kept_is_kept(tmp_path, successes, kept):
    saved: list[int] = []
    for step, success in enumerate(successes):
        def save(folder, step=step):
            folder.mkdir(exist_ok=True)
            if folder.name == "best":
                saved.append(step)

        hook = EvaluationHook(every_steps=1, keep_best=step > 0)
        evaluate = Evaluator(success).answer
        Evaluations(hook, (2,), tmp_path, evaluate).run("policy", step, save)
    assert saved == kept
    shutil.rmtree(tmp_path / "best")
    Evaluations(hook, (2,), tmp_path, Evaluator(0.0).answer).run("policy", 9, save)
    assert saved[-1] == step and len(saved) == len(kept) + 1


def test_an_evaluation_that_a_kill_cut_short_is_done_again(tmp_path):
    def killed(model):
        raise KeyboardInterrupt

    settings = hooked(every_steps=3, keep_best=True)
    with pytest.raises(KeyboardInterrupt):
        TrainingRun(settings, made_up_episodes(), tmp_path, Recorder(), evaluate=killed)()
    assert read_lines(tmp_path / "evaluation.jsonl") == []
    again = Evaluator(0.5, 0.6, 0.7)
    TrainingRun(settings, made_up_episodes(), tmp_path, Recorder(), evaluate=again)()
    written = read_lines(tmp_path / "evaluation.jsonl")
    assert [(line["phase"], line["step"]) for line in written] == [
        ("policy", 3), ("policy", 6), ("heads", 2)
    ]


def test_an_exit_that_the_model_has_not_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"evaluation\.exits has 5; the exits are after layers"):
        settings = hooked(every_steps=1, exits=(2, 5))
        TrainingRun(settings, iter(()), tmp_path, Recorder(), evaluate=Evaluator())


def test_half_a_line_is_taken_away_before_the_next(tmp_path):
    file = tmp_path / "log.jsonl"
    append_line(file, {"a": 1})
    with file.open("a") as stream:
        stream.write('{"a": ')
    assert read_lines(file) == [{"a": 1}]
    append_line(file, {"a": 2})
    assert read_lines(file) == [{"a": 1}, {"a": 2}]
