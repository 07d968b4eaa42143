from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from official_model import Official, write_files

from deer_ros.cli.main import main

OFFICIAL = Official()


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """The command line of a conversion to `model`."""
    files = write_files(tmp_path, OFFICIAL)
    (tmp_path / "config.json").write_text(json.dumps(files.pop("config")))
    files["config"] = tmp_path / "config.json"
    options = [text for name, path in files.items() for text in (f"--{name}", str(path))]
    return ["convert", str(tmp_path / "model"), *options]


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


INPUTS = ["clip.safetensors", "config.json", "deer.pth"]


def test_a_conversion_tells_what_became_of_the_tensors(capsys, tmp_path, arguments):
    assert main(arguments) == 0
    streams = capsys.readouterr()
    assert "tensors used" in streams.out and "dropped: CLIP's text tower" in streams.out
    assert str(tmp_path / "model") in streams.out
    assert streams.err == "", "a progress bar belongs on a terminal"
    assert main(["info", str(tmp_path / "model")]) == 0


def test_a_program_gets_every_tensor_by_name(capsys, arguments):
    assert main([*arguments, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [file["role"] for file in told["files"]] == ["clip", "deer"]
    deer = told["files"][1]
    assert "module.perceiver.latents" in deer["used"]
    assert deer["dropped"]["module.lm_head.rnn.layers.0.bias_ih_l0"] == "a head of training only"
    assert deer["dropped_values"]["epoch"] == "of training only"


def test_a_refusal_is_one_line_and_leaves_nothing(capsys, tmp_path, arguments):
    (tmp_path / "deer.pth").write_bytes(b"broken")
    assert main(arguments) == 2
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1
    assert streams.err.startswith("deer convert: ") and "deer.pth" in streams.err
    assert names(tmp_path) == INPUTS


def test_a_missing_option_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as end:
        main(["convert", "model", "--deer", "x.pt"])
    assert end.value.code == 2
    assert "--clip" in capsys.readouterr().err


# Sends itself a signal when half of the model is written.
INTERRUPTED = """
import os, signal, sys
import deer_ros.checkpoint.convert as convert
from deer_ros.cli.main import main

write = convert.write_shards

def write_and_stop(folder, shapes, tensor, progress, shard_bytes):
    asked = []
    def tensor_and_stop(name):
        asked.append(name)
        if len(asked) == len(shapes) // 2:
            os.kill(os.getpid(), int(sys.argv[1]))
        return tensor(name)
    return write(folder, shapes, tensor_and_stop, progress, shard_bytes)

convert.write_shards = write_and_stop
raise SystemExit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(tmp_path, arguments, number):
    run = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, str(int(number)), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True, text=True,
    )
    assert run.returncode == 130, run.stderr
    assert "Traceback" not in run.stderr
    assert names(tmp_path) == INPUTS
