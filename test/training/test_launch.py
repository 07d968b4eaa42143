"""What is started several times over ends as its processes did, without a traceback."""

from __future__ import annotations

import signal

import pytest
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from deer_ros.training import launch


@pytest.fixture(autouse=True)
def handler_as_before():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def failed(code: int) -> ChildFailedError:
    return ChildFailedError("deer", {1: ProcessFailure(1, 7, code, "no file")})


@pytest.mark.parametrize(("end", "code"), [
    (SignalException("ended", signal.SIGTERM), 130),
    (SignalException("ended", signal.SIGINT), 130),
    (KeyboardInterrupt(), 130),
    (failed(2), 2),
    (failed(-9), 1),
])
def test_the_exit_code_is_that_of_the_processes(monkeypatch, end, code):
    def run(arguments):
        assert arguments.nproc_per_node == "2"
        raise end

    monkeypatch.setattr(torchrun, "run", run)
    assert launch.main(["--nproc-per-node=2", "-m", "deer_ros.cli", "train"]) == code


def test_what_ends_well_ends_with_0(monkeypatch):
    monkeypatch.setattr(torchrun, "run", lambda arguments: None)
    assert launch.main(["-m", "deer_ros.cli"]) == 0
