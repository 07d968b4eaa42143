"""Evaluations between training steps: they see the present model and change nothing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from made_up_runs import Recorder, config, made_up_episodes
from safetensors.torch import load_file

from deer_ros.policy import DeerPolicy
from deer_ros.report.json_lines import append_line, read_lines
from deer_ros.training.config import EvaluationHook
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


def test_the_best_model_is_kept(tmp_path):
    evaluator = Evaluator(0.2, 0.8, 0.8, 0.1)
    run = TrainingRun(
        hooked(every_steps=2, keep_best=True), made_up_episodes(), tmp_path, Recorder(),
        evaluate=evaluator,
    )  # fmt: skip
    last = load_file(run() / "model.safetensors")
    best = load_file(tmp_path / "best" / "model.safetensors")
    assert all(torch.equal(best[name], evaluator.seen[1][name]) for name in best)
    assert any(not torch.equal(best[name], last[name]) for name in best)


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
