"""Layers learn what instructions mean before they see a picture."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_up_runs import Recorder, config, made_up_episodes
from tiny_model import tiny_config
from torch import nn

from deer_ros.model.deer import DeerModel
from deer_ros.model.prompt import PromptEncoder, word_tokenizer
from deer_ros.policy import DeerPolicy
from deer_ros.training.config import LanguagePhase, PolicyPhase, TrainingConfig
from deer_ros.training.instructions import meanings_of
from deer_ros.training.language_phase import MeaningClassifier, Sentences
from deer_ros.training.losses import meaning_loss
from deer_ros.training.policy_phase import MultiExitTraining
from deer_ros.training.run import TrainingRun

VERBS = ("open", "close", "shut", "pull")
KINDS = [
    {f"{verb} {number}": verb for verb in VERBS for number in range(20)},
    {"stop": "stop"},
]


TOKENIZER, PROMPT = word_tokenizer([text for kind in KINDS for text in kind])


def sentences(holdout: float = 0.1, seed: int = 0) -> Sentences:
    encode = PromptEncoder(TOKENIZER, PROMPT).encode
    return Sentences(KINDS, encode, PROMPT.padding_token, holdout, seed)


def classifier_of(learned: Sentences) -> MeaningClassifier:
    torch.manual_seed(0)
    language = dataclasses.replace(tiny_config().language, vocabulary=len(TOKENIZER))
    model = DeerModel(tiny_config(prompt=PROMPT, language=language))
    return MeaningClassifier(model, learned.meanings)


def run(
    folder: Path, steps: int = 4, heard: Recorder | None = None, **policy
) -> tuple[TrainingRun, Recorder]:
    heard = heard or Recorder()
    asked = dataclasses.replace(
        config(),
        language=LanguagePhase(steps=steps, batch_sentences=8, warmup_steps=1),
        policy=dataclasses.replace(config().policy, **policy),
    )
    said = [
        {"open the drawer": "open", "draw it open": "open"},
        {"close the drawer": "close", "close it": "close"},
    ]
    started = TrainingRun(asked, made_up_episodes(), folder, heard, sentences=said)
    started()
    return started, heard


def test_every_exit_learns_what_sentences_mean_that_it_never_heard():
    learned = sentences()
    classifier = classifier_of(learned)
    optimizer = torch.optim.AdamW(classifier.learned(), lr=3e-3)
    for step in range(150):
        optimizer.zero_grad()
        classifier(*learned.draw(np.random.default_rng(step), 32))["meaning"].backward()
        optimizer.step()
    with torch.no_grad():
        # Guessing would cost the logarithm of five meanings, 1.6.
        assert float(classifier(*learned.all_held())["meaning"]) < 0.1


def test_a_kind_with_more_sentences_is_drawn_more_often_but_none_is_forgotten():
    learned = sentences()
    *_, meant, _ = learned.draw(np.random.default_rng(0), 4000)
    stops = float((meant == meanings_of(KINDS)["stop"]).float().mean())
    assert stops == pytest.approx(1 / (1 + 80**0.5), abs=0.02)


def test_no_sentence_is_learned_and_validated_but_for_a_kind_of_a_single_one():
    learned = sentences()
    held, drawn = set(learned.held), {row for rows in learned.learned for row in rows.tolist()}
    assert len(held) == 9 and drawn | held == set(range(81))
    assert drawn & held == {80}
    assert set(sentences(seed=1).held) != held


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch_and_its_loss(world):
    learned = sentences()
    classifier = classifier_of(learned)

    def loss(rank: int, world: int) -> float:
        drawn = learned.draw(np.random.default_rng(3), 32, rank, world)
        return float(classifier(*drawn)["meaning"].detach())

    assert np.mean([loss(rank, world) for rank in range(world)]) == pytest.approx(loss(0, 1))


@pytest.mark.long
@pytest.mark.parametrize("meaning_weight", [0.0, 0.5])
def test_a_killed_phase_goes_on_as_if_it_had_not_been(tmp_path, meaning_weight):
    asked = {"steps": 6, "meaning_weight": meaning_weight}
    _, whole = run(tmp_path / "whole", **asked)
    resumed: dict = {}
    for stop in (("language", 3), ("policy", 3), None):
        recorder = Recorder(stop)
        try:
            run(tmp_path / "killed", heard=recorder, **asked)
        except KeyboardInterrupt:
            pass
        resumed.update(recorder.lines)
    assert resumed == whole.lines


def test_words_that_no_demonstration_says_are_known_all_the_same(tmp_path):
    run(tmp_path)
    prompts = DeerPolicy.from_pretrained(tmp_path / "model", device="cpu").prompts
    assert prompts.unknown_words("draw it open the drawer") == []
    assert prompts.unknown_words("lift it") == ["lift"]


def test_the_vision_part_does_not_learn_from_words(tmp_path):
    trained, _ = run(tmp_path)
    seen = torch.load(tmp_path / "vision.pt", weights_only=True)["module"]
    for name, values in trained.model.state_dict().items():
        if name.startswith(("tower.", "resampler.")):
            assert torch.equal(values, seen[name]), name


def test_what_layers_know_of_words_stays_as_they_learn_to_see(tmp_path):
    trained, _ = run(tmp_path)
    known = torch.load(tmp_path / "language.pt", weights_only=True)["module"]
    model = trained.model.state_dict()
    kept = [name for name in model if name.startswith("embedding.") or ".block." in name]
    assert {f"model.{name}" for name in kept} == {k for k in known if k.startswith("model.")}
    assert all(torch.equal(model[name], known[f"model.{name}"]) for name in kept)
    gates = [values for name, values in model.items() if name.endswith("attention_gate")]
    assert all(0 < abs(float(gate)) < 0.5 for gate in gates)


def test_layers_that_are_asked_what_was_meant_learn_to_see_too(tmp_path):
    trained, heard = run(tmp_path, meaning_weight=0.5)
    known = torch.load(tmp_path / "language.pt", weights_only=True)["module"]
    model = trained.model.state_dict()
    moved = [name for name in model if ".block." in name and model[name].ndim >= 2]
    assert moved and not any(torch.equal(model[n], known[f"model.{n}"]) for n in moved)
    losses = {step: line for (phase, step), line in heard.lines.items() if phase == "policy"}
    assert all(line["meaning"] > 0 and line["validation_meaning"] > 0 for line in losses.values())


@pytest.mark.parametrize(("policy", "gate"), [
    ({"meaning_weight": 0.5}, 1.0), ({"meaning_weight": 0.5, "gates": 0.3}, 0.3), ({}, 0.0),
])
def test_layers_look_from_the_first_step_on_unless_that_would_cost_them_words(
    tmp_path, policy, gate
):
    model = run(tmp_path, **policy)[0].model.state_dict()
    gates = [float(values) for name, values in model.items() if name.endswith("_gate")]
    # They moved a little as they learned.
    assert gates == pytest.approx([gate] * len(gates), abs=0.1)


def test_a_model_that_is_started_from_brings_its_own_gates():
    with pytest.raises(ValueError, match="policy.gates is 0.5; a model that is started from"):
        TrainingConfig(start_from="model", policy=PolicyPhase(gates=0.5))
    with pytest.raises(ValueError, match="policy.gates is -1; it must be a finite number from 0"):
        PolicyPhase(gates=-1)


def test_what_is_meant_costs_the_mean_over_exits_and_nothing_where_it_is_unknown():
    torch.manual_seed(0)
    read_outs = nn.ModuleList(nn.Linear(5, 3) for _ in range(2))
    features, meant = torch.randn(2, 4, 5), torch.tensor([0, -1, 2, 1])
    chances = torch.stack([read(f) for read, f in zip(read_outs, features)]).softmax(dim=-1)
    said = torch.stack([chances[:, n, m] for n, m in enumerate(meant.tolist()) if m >= 0])
    loss = meaning_loss(read_outs, features, meant)
    assert loss.item() == pytest.approx(-said.log().sum().item() / 8)
    assert meaning_loss(read_outs, features, torch.full((4,), -1)).item() == 0


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_what_asking_on_costs(tmp_path, world):
    trained, _ = run(tmp_path, meaning_weight=0.5)
    read_outs = nn.ModuleList(nn.Linear(16, 2) for _ in trained.model.config.exit_layers)
    phase = trained.config.policy
    training = MultiExitTraining(trained.model, phase, read_outs=read_outs).eval()

    def loss(rank: int, world: int) -> float:
        trained.phases = SimpleNamespace(rank_and_world=(rank, world))
        batches = trained._batches(trained._look(), trained.training)
        return training(batches.draw(np.random.default_rng(3), 6))["meaning"].item()

    mean = np.mean([loss(rank, world) for rank in range(world)])
    assert mean == pytest.approx(loss(0, 1)) and mean > 0


@pytest.mark.parametrize("without", [{}, {"start_from": "models/bundled"}])
def test_words_that_no_phase_taught_cannot_be_kept(without):
    policy = dataclasses.replace(config().policy, meaning_weight=0.1)
    with pytest.raises(ValueError, match=r"meaning_weight is 0\.1; .* Set language\.steps"):
        TrainingConfig(policy=policy, **without)


def test_a_phase_without_sentences_is_refused_before_anything_is_trained(tmp_path):
    asked = dataclasses.replace(config(), language=LanguagePhase(steps=2))
    with pytest.raises(ValueError, match=r"language\.steps and .* ask for instructions"):
        TrainingRun(asked, made_up_episodes(), tmp_path, Recorder())
