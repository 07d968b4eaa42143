"""How a bag is to be played into a running node: asked of a program, as the launch file does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from camera_bag import write_camera_bag

from deer_ros.replay.played import main


@pytest.fixture
def bag(tmp_path):
    write_camera_bag(tmp_path / "bag", 3)
    return str(tmp_path / "bag")


def test_the_program_answers_in_json(bag):
    answer = subprocess.run(
        [sys.executable, "-m", "deer_ros.replay.played", bag, "--remap", "instruction:=/task"],
        capture_output=True, text=True, check=True)
    played = json.loads(answer.stdout)
    assert played["transport"] == "compressed"
    assert played["remap"] == {"instruction": "/task"}
    assert played["renamed"]["/deer/action"] == "/recorded/deer/action"


def test_in_a_namespace_rules_are_handed_on_as_they_are(bag, capsys):
    assert main([bag, "--remap", "instruction:=/task", "--namespace", "left"]) == 0
    played = json.loads(capsys.readouterr().out)
    assert played["remap"] == {"instruction": "/task"}
    assert played["renamed"]["/left/deer/action"] == "/recorded/left/deer/action"


@pytest.mark.parametrize("words, sentence", [
    (["--remap", "camera/static/image:=/front"], "lacks /front"),
    (["--remap", "a=b"], "must be from:=to"),
    (["--remap", "a=b", "--namespace", "left"], "must be from:=to"),
])
def test_what_cannot_be_played_is_answered_with_a_sentence(bag, capsys, words, sentence):
    assert main([bag, *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_bag_that_is_not_there_is_answered_with_a_sentence(tmp_path, capsys):
    assert main([str(tmp_path / "none")]) == 2
    assert "there is no bag at" in capsys.readouterr().err
