"""`deer train` from bags to a model directory that the policy runs."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import yaml
from episodes import Units, make_episode
from tiny_model import tiny_config, write_tiny_model

from deer_ros.cli.main import main
from deer_ros.data.bags import EpisodeBagWriter
from deer_ros.model.schema import to_dict
from deer_ros.observation import Observation
from deer_ros.policy import DeerPolicy
from deer_ros.report.json_lines import read_lines
from deer_ros.report.locks import locked


@pytest.fixture
def bag(tmp_path):
    folder = tmp_path / "demos" / "drawer"
    with EpisodeBagWriter(folder, Units(), joint_names=("one", "two")) as writer:
        for seed in range(4):
            writer.write(make_episode(frames=6, seed=seed))
    return folder


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({
        "model": to_dict(tiny_config()),
        "vision": {"steps": 2, "batch_frames": 4, "warmup_steps": 1},
        "policy": {"steps": 2, "batch_windows": 2, "window": 4, "warmup_steps": 1},
        "log_every_steps": 1,
    }))
    return file


def train(config, data, out, *more):
    return main(["train", str(config), "--data", str(data), "--out", str(out), *more])


def test_a_bag_becomes_a_model_and_the_log_says_every_step(bag, config, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(config, bag, out, "--json") == 0
    folder = json.loads(capsys.readouterr().out)["model"]
    policy = DeerPolicy.from_pretrained(folder, device="cpu")
    episode = make_episode()
    step = policy.step(Observation(episode.static[0], episode.gripper[0]), "open the drawer")
    assert step.exit_layer in policy.config.exit_layers
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [
        ("vision", 1), ("vision", 2), ("latents", 1), ("policy", 1), ("policy", 2)
    ]


def test_a_finished_run_is_not_trained_again(bag, config, tmp_path):
    out = tmp_path / "run"
    assert train(config, bag, out) == 0
    log = (out / "log.jsonl").read_text()
    weights = (out / "model" / "model.safetensors").read_bytes()
    assert train(config, bag, out) == 0
    assert (out / "log.jsonl").read_text() == log
    assert (out / "model" / "model.safetensors").read_bytes() == weights


def test_a_begun_run_goes_on_with_the_benchmarks_tasks_of_then(
    bag, config, tmp_path, capsys, monkeypatch
):
    asked = ("--set", "policy.paraphrases=true", "--set", "model.language.vocabulary=64")
    plain, told = tmp_path / "plain", tmp_path / "told"
    assert train(config, bag, plain) == train(config, bag, told, *asked) == 0
    others = ("push", "drawer-open")
    monkeypatch.setattr("deer_ros.sim.tasks.DEMONSTRATION_TASKS", others)
    assert train(config, bag, plain) == 0, "it says nothing of the tasks"
    capsys.readouterr()
    assert train(config, bag, told, *asked) == 2
    assert "was started with language.tasks ['push', 'pick-place'" in capsys.readouterr().err


@pytest.mark.parametrize(("tasks", "named"), [
    ("[push]", "1 of the demonstrated instructions, as 'open the drawer', belong to none of"),
    ("[push, drawer-open]", ""),
])
def test_instructions_whose_meaning_is_not_known_are_named(
    bag, config, tmp_path, capsys, tasks, named
):
    asked = ("--set", "policy.paraphrases=true", "--set", f"language.tasks={tasks}")
    assert train(config, bag, tmp_path / "run", *asked) == 0
    said = capsys.readouterr().err
    assert named in said and bool(named) == ("demonstrated instructions" in said)


def test_what_cannot_be_trained_on_is_one_line_and_code_2(bag, config, tmp_path, capsys):
    out = tmp_path / "run"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("policy: {stepz: 3}\n")
    (tmp_path / "empty").mkdir()
    for file, data, complaint in (
        (wrong, bag, "policy.stepz"),
        (tmp_path / "none.yaml", bag, "none.yaml cannot be read: No such file"),
        (config, tmp_path / "nowhere", "nowhere"),
        (config, tmp_path / "empty", "empty"),
    ):
        assert train(file, data, out) == 2
        said = capsys.readouterr().err.strip()
        assert complaint in said and "\n" not in said, said
    assert not (out / "model").exists()


def test_a_run_that_cannot_be_leaves_nothing_behind(bag, config, tmp_path, capsys):
    out = tmp_path / "run"
    for more, complaint in (
        (("--processes", "3"), "policy.batch_windows is 2; 3 processes share a batch"),
        (("--set", "policy.learning_rate=-1"), "policy.learning_rate is -1.0; it must be"),
    ):
        assert train(config, bag, out, *more) == 2
        said = capsys.readouterr().err.strip()
        assert complaint in said and "\n" not in said, said
    assert not out.exists()
    assert train(config, bag, config) == 2
    assert "run.yaml, which is a file; name a folder" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_named_as_such(bag, config, tmp_path, capsys):
    out = tmp_path / "run"
    out.mkdir()
    (out / "data.json").write_text(json.dumps([str(bag)]))
    assert train(config, bag, out) == 2
    said = capsys.readouterr().err.strip()
    assert "was begun by an earlier version" in said and "\n" not in said, said


def test_words_that_a_model_does_not_know_are_named_as_it_is_trained_on(
    bag, config, tmp_path, capsys
):
    start = write_tiny_model(tmp_path / "model")
    config.write_text(yaml.safe_dump({
        "start_from": str(start), "policy": {"steps": 1, "batch_windows": 2, "window": 4},
    }))
    for said, named in (
        ("open the drawer", ""),
        ("open the fridge", "1 of the demonstrated words, as 'fridge'"),
    ):
        assert train(config, bag, tmp_path / said, "--instruction", said) == 0
        told = capsys.readouterr().err
        assert named in told and bool(named) == ("demonstrated words" in told), told


def test_a_run_does_not_go_on_from_other_weights_than_it_started_from(
    bag, config, tmp_path, capsys
):
    start, out = write_tiny_model(tmp_path / "model"), tmp_path / "run"
    config.write_text(yaml.safe_dump({
        "start_from": str(start), "policy": {"steps": 1, "batch_windows": 2, "window": 4},
    }))
    assert train(config, bag, out) == train(config, bag, out) == 0
    write_tiny_model(start, seed=1)
    capsys.readouterr()
    assert train(config, bag, out) == 2
    said = capsys.readouterr().err.strip()
    assert "was started with start_weights" in said and "\n" not in said, said
    # A run of a version that did not write them down goes on, and does from then on.
    source = json.loads((out / "data.json").read_text())
    del source["start_weights"]
    (out / "data.json").write_text(json.dumps(source))
    assert train(config, bag, out) == 0
    write_tiny_model(start, seed=2)
    assert train(config, bag, out) == 2


def test_a_run_does_not_go_on_with_another_vision_part_than_it_began_with(
    bag, config, tmp_path, capsys
):
    start, out = write_tiny_model(tmp_path / "model"), tmp_path / "run"
    taken = {"vision": {"start_from": str(start)}}
    config.write_text(yaml.safe_dump(yaml.safe_load(config.read_text()) | taken))
    assert train(config, bag, out) == 0
    write_tiny_model(start, seed=1)
    capsys.readouterr()
    assert train(config, bag, out) == 2
    said = capsys.readouterr().err.strip()
    assert "was started with vision_weights" in said and "\n" not in said, said
    assert train(config, bag, tmp_path / "new", "--set", "vision.start_from=nowhere") == 2
    said = capsys.readouterr().err.strip()
    assert "nowhere" in said and "\n" not in said, said


def test_a_start_that_is_no_model_is_named(bag, config, tmp_path, capsys):
    config.write_text(f"start_from: {tmp_path / 'nothing'}\n")
    assert train(config, bag, tmp_path / "run") == 2
    said = capsys.readouterr().err.strip()
    assert "start_from is" in said and "is no model directory" in said and "\n" not in said, said


@pytest.mark.parametrize("threads", ["-1", "99999"])
def test_a_number_of_threads_that_torch_does_not_take_is_refused(
    bag, config, tmp_path, capsys, threads
):
    assert train(config, bag, tmp_path / "run", "--threads", threads) == 2
    said = capsys.readouterr().err
    assert said == f"deer train: --threads is {threads}; it must be 0 to 1024.\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("damage", [b"", b"junk", None])
def test_a_damaged_checkpoint_is_named_with_what_to_do(bag, config, tmp_path, capsys, damage):
    out = tmp_path / "run"
    assert train(config, bag, out) == 0
    file = out / "policy.pt"
    if damage is None:
        torch.save({"step": 1}, file)
    else:
        file.write_bytes(damage)
    capsys.readouterr()
    assert train(config, bag, out) == 2
    said = capsys.readouterr().err.strip()
    assert "policy.pt cannot be read as a checkpoint" in said and "\n" not in said, said
    file.unlink()
    assert train(config, bag, out) == 0


def test_a_run_does_not_go_on_with_other_data_or_read_otherwise(bag, config, tmp_path, capsys):
    out = tmp_path / "run"
    assert train(config, bag, out) == 0
    for data, more, sentence in (
        (bag.parent, (), f"was started with data ['{bag}'], which is ['{bag.parent}'] now"),
        (bag, ("--lerobot", "gripper_open=low"), "lerobot.gripper_open high, which is low now"),
        (bag, ("--instruction", "push"), "bags.instruction , which is push now"),
        (bag, ("--remap", "a:=b"), "bags.names [], which is ['a:=b'] now"),
        (bag, ("--param", "safety.input_timeout:=2.0"), "bags.gap_s 0.5, which is 2.0 now"),
    ):
        capsys.readouterr()
        assert train(config, data, out, *more) == 2
        said = capsys.readouterr().err.strip()
        assert sentence in said and "\n" not in said, said
    # What does not change how bags are read may be another.
    assert train(config, bag, out, "--param", "safety.max_linear_velocity:=0.1") == 0


def test_a_refused_run_begins_anew_with_what_it_is_given_next(bag, config, tmp_path, capsys):
    few, out = tmp_path / "few", tmp_path / "run"
    with EpisodeBagWriter(few / "first", Units(), joint_names=("one", "two")) as writer:
        writer.write(make_episode(frames=6))
    assert train(config, few, out) == 2
    assert "there are 1 episodes" in capsys.readouterr().err
    with EpisodeBagWriter(few / "second", Units(), joint_names=("one", "two")) as writer:
        writer.write(make_episode(frames=7))
    assert train(config, few, out, "--set", "model.language.vocabulary=3") == 2
    assert train(config, bag, out) == 0
    assert np.diff(np.load(out / "frames" / "starts.npy")).tolist() == [6] * 4


def test_a_value_can_be_changed_and_a_begun_run_keeps_what_it_began_with(
    bag, config, tmp_path, capsys
):
    out = tmp_path / "run"
    changes = ("--set", "policy.steps=3", "--set", "policy.auxiliary_weight=0")
    assert train(config, bag, out, *changes) == 0
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["phase"] == "policy"] == [1, 2, 3]
    assert not any("auxiliary" in name for line in lines for name in line)
    capsys.readouterr()
    assert train(config, bag, out) == 2
    said = capsys.readouterr().err.strip()
    assert "was started with policy.steps 3, which is 2 now" in said and "\n" not in said
    # How it is watched may change.
    assert train(config, bag, out, *changes, "--set", "log_every_steps=2") == 0
    for wrong in ("policy.steps", "policy.stepz=3", "seed.x=1", "policy.shift_px=[1]"):
        assert train(config, bag, tmp_path / "other", "--set", wrong) == 2
        assert "run.yaml" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_model_can_be_trained_for_one_depth_alone(bag, config, tmp_path):
    out = tmp_path / "run"
    depth = "model.exits={interval: 3}", "model.language.layers=3"
    assert train(config, bag, out, *(word for change in depth for word in ("--set", change))) == 0
    policy = DeerPolicy.from_pretrained(out / "model", device="cpu")
    assert policy.config.exit_layers == (3,)


def test_two_processes_do_not_train_in_one_folder(bag, config, tmp_path, capsys):
    out = tmp_path / "run"
    with locked(out, "trains"):
        assert train(config, bag, out) == 2
        assert f"another process trains in {out}" in capsys.readouterr().err
    assert train(config, bag, out) == 0


def test_the_simulator_evaluates_between_steps(bag, config, tmp_path, capsys):
    out = tmp_path / "run"
    hook = "evaluation={every_steps: 2, episodes: 1, tasks: [reach], exits: [2, 6]}"
    short = "model.max_episode_steps=3"
    threads = torch.get_num_threads()
    assert train(config, bag, out, "--set", hook, "--set", short) == 0
    assert torch.get_num_threads() == threads
    (line,) = read_lines(out / "evaluation.jsonl")
    assert (line["phase"], line["step"]) == ("policy", 2)
    assert line.keys() == {
        "phase", "step", "success", "success_exit_2", "success_exit_6", "success_reach"
    }
    assert train(config, bag, tmp_path / "x", "--set", hook.replace("reach", "cook")) == 2
    assert "there is no task 'cook'" in capsys.readouterr().err
