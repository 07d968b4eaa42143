"""A recorded bag played into the policy node: the same actions as in lockstep, loops, pauses."""

from __future__ import annotations

import time

import numpy as np
import pytest
from camera_bag import write_camera_bag
from policy_client import moves, running_policy
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


@pytest.mark.parametrize("seed", [3])
def test_the_node_answers_a_played_bag_as_replay_does(tmp_path, model, seed):
    pictures = write_camera_bag(tmp_path / "bag", 330, seed=seed)
    expected = replayed_actions(model, tmp_path / "bag", tmp_path / "replay",
                                image__transport="compressed", episode__max_duration=3600.0)
    assert len(expected) >= 300
    with running_policy(tmp_path, model=model, use_sim_time=True, episode__max_duration=3600.0,
                        dry_run=True, **COMPRESSED) as node:
        # Slower, where a busy machine loses pictures.
        for rate in (1.0, 0.4, 0.15):
            node.actions.clear()
            seen = node.statuses[-1].images_seen if node.statuses else 0
            with bag_player(tmp_path, tmp_path / "bag", rate=rate) as player:
                node.wait_until(lambda: player._process.poll() is not None, timeout_s=240)
                assert player.wait(1.0) == 0, player.last_words()
            node.drain()
            answered = {key(action): action for action in node.actions}
            print(rate, node.statuses[-1].images_seen - seen, pictures, len(answered), len(expected), len(answered.keys()^expected.keys()), player.last_words())
            if answered.keys() == expected.keys():
                break
    assert answered.keys() == expected.keys()
    for stamps, action in answered.items():
        np.testing.assert_allclose(action.action, expected[stamps].action, rtol=0, atol=1e-6)
        assert action.gripper == expected[stamps].gripper
        assert action.exit_layer == expected[stamps].exit_layer
        assert action.step == expected[stamps].step
