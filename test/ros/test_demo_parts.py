from __future__ import annotations

import socket

import pytest
from tiny_model import write_tiny_model

from deer_ros.nodes.children import ChildDied, NodeProcess
from deer_ros.nodes.demo import scenes
from deer_ros.nodes.domain import reserved_domain
from deer_ros.report.locks import locked

WAIT_S = 90.0


def test_two_demos_at_once_get_two_domains():
    with reserved_domain() as first, reserved_domain() as second:
        assert first != second


def test_a_domain_in_which_somebody_is_there_is_not_taken(monkeypatch):
    monkeypatch.setattr("deer_ros.nodes.domain.FREE_DOMAINS", range(90, 92))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as participant:
        # The port of the first participant of domain 90, as the RTPS standard counts them.
        participant.bind(("", 7400 + 250 * 90 + 10))
        with reserved_domain() as domain:
            assert domain == 91
            with pytest.raises(OSError, match="in use"), reserved_domain():
                pass


def test_a_domain_is_free_again_when_it_was_given_back(monkeypatch):
    monkeypatch.setattr("deer_ros.nodes.domain.FREE_DOMAINS", range(93, 94))
    for _ in range(2):
        with reserved_domain() as domain:
            assert domain == 93


def test_a_node_that_cannot_start_is_reported_with_its_last_words(tmp_path):
    with NodeProcess("sim_node", {"task": "make coffee"}, tmp_path) as process:
        assert process.wait(WAIT_S) == 2
        with pytest.raises(ChildDied, match="(?s)exit code 2.*make coffee.*drawer-open") as died:
            process.check()
    assert "Traceback" not in str(died.value)


def test_a_node_is_gone_when_its_context_is_left_by_an_error(tmp_path):
    with pytest.raises(KeyError):
        with NodeProcess("sim_node", {}, tmp_path) as process:
            process.check()
            raise KeyError
    with pytest.raises(ChildDied):
        process.check()


def test_a_node_that_does_not_listen_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr("deer_ros.nodes.children.GRACE_S", 0.2)
    process = NodeProcess("sim_node", {}, tmp_path)
    process._command = ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"]
    with process:
        while "ready" not in process.log.read_text():
            process.check()
    with pytest.raises(ChildDied, match="exit code -9"):
        process.check()


def test_parameters_keep_their_types_on_the_way_into_a_node(tmp_path):
    """A folder named like a number stays a text, and what YAML would take for one too."""
    with NodeProcess("sim_node", {"frame_id": "007", "task": "1e3"}, tmp_path) as process:
        assert process.wait(WAIT_S) == 2
    assert "task is '1e3'" in process.log.read_text()


def test_episodes_are_spread_over_the_tasks_and_each_scene_is_another():
    wanted = scenes(["reach", "push", "pick-place"], 8, 100)
    assert wanted == [("reach", 100), ("reach", 101), ("reach", 102),
                      ("push", 100), ("push", 101), ("push", 102),
                      ("pick-place", 100), ("pick-place", 101)]
    assert scenes(["reach", "push"], 1, 5) == [("reach", 5)]


@pytest.mark.parametrize("arguments, sentence", [
    (["--tasks", "make-coffee"], "there is no task 'make-coffee'"),
    (["--episodes", "0"], "--episodes must be at least 1"),
    (["--min-success", "80"], "--min-success is 80"),
    (["--domain", "1000"], "ROS domains are 0 to 232"),
    (["--thresholds", "nan"], "not nan"),
    (["--model", "nowhere"], "nowhere"),
    (["--thresholds", "0.1", "--full-depth"], "not allowed with"),
])
def test_a_wrong_argument_is_answered_in_one_line(tmp_path, capsys, monkeypatch, arguments,
                                                  sentence):
    from deer_ros.nodes import demo
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["demo", *arguments])
    monkeypatch.setattr("deer_ros.nodes.demo.bundled_model", lambda: tmp_path)
    try:
        code = demo.main()
    except SystemExit as exit:
        code = exit.code
    said = capsys.readouterr().err
    assert code == 2 and sentence in said and "Traceback" not in said
    assert not (tmp_path / "demo_output").exists()


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path, capsys, monkeypatch):
    from deer_ros.nodes import demo
    model, out = write_tiny_model(tmp_path / "model"), tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["demo", "--model", str(model), "--out", str(out)])
    with locked(out, "runs a demo"):
        assert demo.main() == 2
    assert "another process runs a demo in" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == [".lock"]
