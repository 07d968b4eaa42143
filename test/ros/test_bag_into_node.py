"""A recorded bag played into the policy node: the same actions as in lockstep, loops, pauses."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from camera_bag import START_NS, write_camera_bag
from policy_client import PATIENT, moves, running_policy
from std_srvs.srv import SetBool
from tiny_model import write_tiny_model

from deer_ros.cli.main import main as deer
from deer_ros.control.safety import Reason, State
from deer_ros.data.own_messages import ACTION
from deer_ros.data.recording import Recording
from deer_ros.nodes.children import NodeProcess
from deer_ros.nodes.stamps import to_nanoseconds

COMPRESSED = {"image__transport": "compressed", "image__reliability": "reliable"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("model")))


def bag_player(folder, bag, **parameters) -> NodeProcess:
    """Starts to play when the policy is active."""
    return NodeProcess(
        "player_node", {"bag": str(bag), "wait_for": "deer", **parameters}, folder)


def key(action) -> tuple[int, int]:
    return to_nanoseconds(action.static_stamp), to_nanoseconds(action.gripper_stamp)


def replayed_actions(model: str, bag, out, **parameters) -> dict:
    """What `deer replay` answers, by the stamps of both pictures."""
    given = [f"--param={name.replace('__', '.')}:={value}" for name, value in parameters.items()]
    assert deer(["replay", model, str(bag), "--out", str(out), *given]) == 0
    actions = {}
    files = sorted({path.parent for path in out.rglob("*.mcap")})
    for folder in files:
        with Recording(folder) as recording:
            topics = [name for name, topic in recording.topics.items() if topic.kind == ACTION]
            for topic, _, data in recording.messages(topics):
                action = recording.decode(topic, data)
                actions[key(action)] = action
    return actions


def play_to_the_end(node, folder, bag, rate: float, expected: dict) -> dict:
    """The node's actions by the stamps of both pictures."""
    node.actions.clear()
    with bag_player(folder, bag, rate=rate) as player:
        node.wait_until(lambda: player._process.poll() is not None, timeout_s=300)
        assert player.wait(30) == 0, player.last_words()
    # The last ones are under way yet, if nothing was dropped.
    with contextlib.suppress(AssertionError):
        node.wait_until(lambda: len(node.actions) >= len(expected), timeout_s=5.0)
    return {key(action): action for action in node.actions}


@pytest.mark.clock
def test_the_node_answers_a_played_bag_as_replay_does(tmp_path, model):
    bag = tmp_path / "bag"
    write_camera_bag(bag, 330, seed=3)
    settings = {"image__transport": "compressed", "episode__max_duration": 3600.0} | PATIENT
    expected = replayed_actions(model, bag, tmp_path / "replay", **settings)
    assert len(expected) >= 300
    with running_policy(tmp_path, model=model, use_sim_time=True, dry_run=True,
                        **COMPRESSED | settings) as node:
        # Slower, where a busy machine drops pictures.
        for rate in (1.0, 0.4, 0.12):
            answered = play_to_the_end(node, tmp_path, bag, rate, expected)
            if answered.keys() == expected.keys():
                break
    assert answered.keys() == expected.keys(), (
        rate, sorted(expected.keys() - answered.keys()), sorted(answered.keys() - expected.keys()))
    for stamps, action in answered.items():
        np.testing.assert_allclose(action.action, expected[stamps].action, rtol=0, atol=1e-6)
        assert action.gripper == expected[stamps].gripper
        assert action.exit_layer == expected[stamps].exit_layer
        assert action.step == expected[stamps].step


@pytest.mark.long
def test_loops_begin_new_episodes_and_a_pause_is_no_stale_input(tmp_path, model):
    write_camera_bag(tmp_path / "bag", 60)
    # Shorter than the bag: where time begins anew, so does an episode that was over.
    with running_policy(tmp_path, model=model, use_sim_time=True, allow_simulation_model=True,
                        episode__max_duration=1.5, safety__workspace_min=[-9.0, -9.0, -9.0],
                        # Longer than a machine stands still, and shorter than the pause.
                        safety__input_timeout=2.0, **COMPRESSED) as node, bag_player(
                            tmp_path, tmp_path / "bag", loop=True) as player:
        status = node.wait_for_status(lambda s: s.state == State.RUNNING)
        # So that the service is known when it is to be quick.
        assert node.call(SetBool, "player/pause", SetBool.Request(data=False)).success
        for _ in range(2):
            node.wait_for_status(lambda s: s.reason == Reason.EPISODE_OVER)
            jumped = node.wait_for_status(lambda s, last=status.episode: s.episode > last
                                          and s.reset_reason == "clock jumped")
            status = node.wait_for_status(lambda s: s.state == State.RUNNING)
            assert to_nanoseconds(status.static_stamp) - START_NS < 10**9
            assert status.episode == jumped.episode and status.reset_reason == "clock jumped"

        assert node.call(SetBool, "player/pause", SetBool.Request(data=True)).success
        node.drain()
        told, answered, count = len(node.statuses), len(node.actions), len(node.diagnostics)
        node.wait_until(lambda: len(node.diagnostics) > count + 4)
        assert not moves(node.twists[-1]), "no robot moves on a clock that stands"
        assert len(node.actions) == answered
        assert not any(s.reason == Reason.INPUT_STALE for s in node.statuses[told:])
        assert node.call(SetBool, "player/pause", SetBool.Request(data=False)).success
        after = node.wait_for_status(lambda s: s.state == State.RUNNING)
        assert (after.episode, after.reset_reason) == (status.episode, "clock jumped")
        assert after.step > status.step
        assert not any(s.reason == Reason.INPUT_STALE for s in node.statuses[told:])

        player.stop()
        node.wait_until(lambda: not moves(node.twists[-1]))
        assert "Traceback" not in node.said()
