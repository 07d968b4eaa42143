"""The policy node in a process of its own, over DDS."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from deer_ros.msg import PolicyStatus
from geometry_msgs.msg import PoseStamped
from lifecycle_msgs.msg import Transition
from policy_client import LATCHED, PATIENT, image, moves, running_policy
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from stillness import on_time
from tiny_model import write_tiny_model

from deer_ros.control.safety import Reason, State
from deer_ros.nodes.stamps import to_nanoseconds, to_time

pytestmark = pytest.mark.clock

OPEN = "open the drawer"
RUNNING, STOPPED = State.RUNNING, State.STOPPED
TIMEOUT_S = 0.5


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    folder = tmp_path_factory.mktemp("policy")
    model = write_tiny_model(folder / "model")
    with running_policy(folder, model=str(model), allow_simulation_model=True,
                        episode__max_duration=3600.0) as client:
        client.wait_until(lambda: client.diagnostics and client.state() == "active")
        yield client


@pytest.fixture
def node(started):
    """One node for the whole file: each test tells it what to do first, and if it is to be quick
    to find an input stale."""
    assert started.set_all(**PATIENT).successful
    return started


def is_running(status: PolicyStatus) -> bool:
    return status.state == RUNNING


def stop_feeding(node) -> None:
    """The cameras fall silent, and the node has noticed. From then on it is patient."""
    node.wait_for_status(is_running)
    node.feeding = False
    node.wait_for_status(lambda status: status.reason == Reason.INPUT_STALE,
                         lambda: node.set(safety__input_timeout=TIMEOUT_S))
    assert node.set_all(**PATIENT).successful


def stop_feeding_for_a_gap(node) -> None:
    """The cameras fall silent for longer than safety.input_timeout, and send again."""
    seen = node.diagnosed("images seen")
    node.feeding = False
    assert node.set(safety__input_timeout=TIMEOUT_S).successful
    node.wait_until(lambda: node.diagnosed("age of camera/static/image [s]", float) > 0.6)
    node.feeding = True
    node.wait_until(lambda: node.diagnosed("images seen") > seen)


def test_the_enumerations_are_those_of_the_message():
    message = PolicyStatus()
    for kind, prefix in ((State, "STATE_"), (Reason, "REASON_")):
        constants = {name: getattr(message, name) for name in dir(message)
                     if name.startswith(prefix)}
        assert constants == {prefix + member.name: member.value for member in kind}


def test_two_pictures_and_an_instruction_make_an_action_and_a_twist(node):
    node.tell(OPEN)
    status = node.wait_for_status(is_running)
    node.wait_until(lambda: node.actions and node.actions[-1].step >= status.step)
    action = next(a for a in node.actions if a.step == status.step
                  and a.episode == status.episode)
    assert action.commanded and action.instruction == OPEN
    assert action.static_stamp == status.static_stamp == action.gripper_stamp
    assert action.exit_layer == status.exit_layer == status.max_layer == 6
    assert status.reason == Reason.NONE and status.detail == ""
    assert status.step_ms > 0 and status.language_gflops > 0
    assert status.average_llm_gflops == pytest.approx(status.language_gflops)

    later = to_nanoseconds(action.header.stamp)
    node.wait_until(lambda: any(to_nanoseconds(t.header.stamp) >= later for t in node.twists))
    twist = next(t for t in node.twists if to_nanoseconds(t.header.stamp) >= later)
    linear = twist.twist.linear
    np.testing.assert_allclose([linear.x, linear.y, linear.z],
                               np.array(action.action[:3]) * 0.04 * 20, rtol=1e-5)
    assert twist.header.frame_id == "base_link"
    node.wait_until(lambda: node.openings)
    assert node.openings[0].data in (0.0, 1.0)


def test_a_live_threshold_change_is_seen_in_the_next_status(node):
    node.tell(OPEN)
    before = node.wait_for_status(is_running)
    assert math.isinf(before.thresholds[0]) or before.thresholds[0] < 0, "full depth at first"
    assert node.get("exit.thresholds") == pytest.approx([0.01, 0.01, 1e9])
    result = node.set_all(exit__policy="fixed", exit__thresholds=[1000, 2000, 3000])
    assert result.successful, result.reason
    after = node.wait_for_status(lambda s: s.settings_version > before.settings_version)
    assert list(after.thresholds) == [1000.0, 2000.0, math.inf]
    assert after.exit_layer == 2
    assert after.settings_version == before.settings_version + 1, "both at once are one change"
    assert after.episode == before.episode, "another threshold is no new episode"

    middle = node.wait_for_status(lambda s: s.settings_version > after.settings_version,
                                  lambda: node.set(exit__thresholds=[-1.0, 1000.0, 1.0]))
    assert middle.exit_layer == 4
    shallow = node.wait_for_status(
        lambda s: s.max_layer == 2, lambda: node.set(exit__max_layer=3))
    assert shallow.exit_layer == 2
    node.wait_for_status(lambda s: s.exit_layer == s.max_layer == 6,
                         lambda: node.set_all(exit__max_layer=0, exit__policy="budget"))


@pytest.mark.parametrize("values, words", [
    ({"exit__thresholds": [0.1, math.nan, 1.0]}, "exit.thresholds"),
    ({"exit__thresholds": [0.1]}, "one per exit"),
    ({"control_rate": -3.0}, "to 1000"),
    ({"dry_run": "yes"}, "true, false"),
    ({"safety__workspace_min": [0.0, 0.0]}, "3 numbers"),
    ({"exit__max_layer": 1}, "the first exit"),
    ({"model": "/elsewhere"}, "unconfigured"),
    ({"executor": "events"}, "at start"),
    ({"dry_run": True, "control_rate": math.inf}, "control_rate"),
])
def test_a_wrong_value_is_refused_with_a_sentence_and_changes_nothing(node, values, words):
    names = [name.replace("__", ".") for name in values]
    before = [node.get(name) for name in names]
    result = node.set_all(**values)
    assert not result.successful and words in result.reason, result.reason
    assert [node.get(name) for name in names] == before


def test_a_parameter_says_what_it_means_and_what_is_allowed(node):
    description = node.describe("safety.input_timeout")
    assert "stale" in description.description
    assert description.additional_constraints.startswith("above 0, up to 60")


def test_parameters_and_services_answer_while_a_long_step_runs(node):
    node.tell("think long")
    node.wait_for_status(lambda s: s.step >= 1 and s.instruction == "think long")

    def ask() -> None:
        waits_s = []
        for index in range(20):
            started_s = time.monotonic()
            if index % 2:
                assert node.set(image__max_skew=0.05).successful
            else:
                node.state()
            waits_s.append(time.monotonic() - started_s)
        # The step takes 500 ms; other processes of this machine get their part of the rest.
        assert sorted(waits_s)[len(waits_s) // 2] < 0.05, waits_s
        assert max(waits_s) < 0.4, waits_s

    on_time(ask)


def test_a_result_of_the_old_episode_is_not_commanded(node):
    late = []
    while not late:
        node.tell("think long")
        node.wait_for_status(is_running)
        assert node.set(instruction=OPEN).successful
        changed_ns = node.now_ns()
        status = node.wait_for_status(lambda s: is_running(s) and s.instruction == OPEN)
        late = [a for a in node.actions if a.instruction == "think long"
                and to_nanoseconds(a.header.stamp) > changed_ns]
    assert not any(a.commanded for a in late)
    assert status.reset_reason == "new instruction" and status.step < 5


@pytest.mark.parametrize("wish, reason", [
    ("answer nan", Reason.NOT_FINITE), ("answer inf", Reason.NOT_FINITE),
    ("fail", Reason.MODEL_ERROR),
])
def test_a_model_that_fails_stops_the_robot_and_the_node_goes_on(node, wish, reason):
    node.tell(OPEN)
    node.wait_for_status(is_running)
    status = node.wait_for_status(lambda s: s.state == STOPPED, lambda: node.tell(wish))
    assert status.reason == reason and status.detail
    assert status.step == 1, "no step was counted"
    node.wait_until(lambda: node.actions[-1].instruction == wish)
    failed = [a for a in node.actions if a.instruction == wish]
    assert not any(a.commanded for a in failed)
    assert all(np.isfinite(a.action).all() for a in failed)
    node.wait_until(lambda: not moves(node.twists[-1]))
    node.tell(OPEN)
    assert node.wait_for_status(is_running).reason == Reason.NONE


def test_malformed_pictures_are_counted_and_the_node_goes_on(node):
    node.tell(OPEN)
    node.wait_for_status(is_running)
    stop_feeding(node)
    short = image()
    short.height = 2000
    bad = [image(encoding="rainbow"), image(step=10), short, image(width=0),
           image(encoding="8UC3")]
    before = node.statuses[-1].images_refused
    used = node.statuses[-1].images_used

    for broken in bad:
        refused = node.diagnosed("images refused")
        node.show(broken, broken)
        node.wait_until(lambda before=refused: node.diagnosed("images refused") > before)
    node.feeding = True
    status = node.wait_for_status(is_running)
    assert status.images_refused >= before + len(bad)
    assert status.images_used == used + 2
    assert "encoding 'rainbow'" in node.said()


def test_padded_pictures_are_used_like_plain_ones(node):
    node.tell(OPEN)
    node.wait_for_status(is_running)
    stop_feeding(node)

    def answer_to(picture) -> np.ndarray:
        """The first answer of a new episode."""
        assert node.reset().success
        node.show(picture, image(30))
        node.wait_until(lambda: node.answers_to(node.shown_ns))
        return np.array(node.answers_to(node.shown_ns)[0].action)

    # Another picture than the padding's, row by row another grey.
    rows = np.repeat(np.arange(24, dtype=np.uint8)[:, None] * 10, 3 * 32, axis=1)
    plain = image()
    plain.data = type(plain.data)("B", rows.tobytes())
    padded = image(step=3 * 32 + 8)
    padded.data = type(padded.data)(
        "B", np.hstack([rows, np.full((24, 8), 255, np.uint8)]).tobytes())
    assert not np.array_equal(answer_to(image()), answer_to(plain))
    np.testing.assert_array_equal(answer_to(padded), answer_to(plain))


def test_a_silent_camera_stops_the_robot_within_the_promise(node):
    def fall_silent() -> None:
        node.tell(OPEN)
        assert node.set(safety__input_timeout=TIMEOUT_S).successful
        node.wait_for_status(is_running)
        node.feeding = False
        status = node.wait_for_status(lambda s: s.reason == Reason.INPUT_STALE)
        assert status.state == STOPPED
        assert "camera/static/image" in status.detail and "0.5 s" in status.detail
        node.drain()
        last_move_ns = max(to_nanoseconds(t.header.stamp) for t in node.twists if moves(t))
        assert last_move_ns - node.shown_ns < (TIMEOUT_S + 0.05) * 1e9
        assert not moves(node.twists[-1])
        node.feeding = True
        status = node.wait_for_status(is_running)
        assert status.reset_reason == "gap in observations" and status.reason == Reason.NONE

    on_time(fall_silent)


def test_after_its_zeros_the_twist_topic_is_left_to_others(node):
    node.tell(OPEN)
    node.wait_for_status(is_running)
    stop_feeding(node)
    node.drain()
    node.wait_until(lambda: time.monotonic() - node.twist_times[-1] > 0.7)
    assert not moves(node.twists[-1])


def test_instructions_come_by_plain_and_latched_topic_and_by_parameter(node):
    node.tell("close the drawer")
    episode = node.wait_for_status(is_running).episode
    node.instruction.publish(String(data="close the drawer"))
    count = len(node.actions)
    node.wait_until(lambda: len(node.actions) > count + 5)
    assert node.actions[-1].episode == episode, "the same text again changes nothing"

    latched = node.node.create_publisher(String, "instruction", LATCHED)
    latched.publish(String(data="push the puck to the goal"))
    status = node.wait_for_status(lambda s: s.instruction == "push the puck to the goal")
    assert status.reset_reason == "new instruction"
    node.node.destroy_publisher(latched)

    node.wait_for_status(lambda s: s.instruction == OPEN and is_running(s),
                         lambda: node.set(instruction=OPEN))
    node.wait_for_status(lambda s: s.reason == Reason.NO_INSTRUCTION,
                         lambda: node.set(instruction=""))


def test_pausing_sends_zero_and_going_on_keeps_the_episode(node):
    node.tell(OPEN)
    episode = node.wait_for_status(is_running).episode
    status = node.wait_for_status(lambda s: s.state == State.PAUSED, lambda: node.pause(True))
    assert status.reason == Reason.PAUSED
    paused_ns = node.shown_ns
    node.wait_until(lambda: not moves(node.twists[-1]))
    seen = node.diagnosed("images seen")
    node.wait_until(lambda: node.diagnosed("images seen") > seen + 10)
    assert not moves(node.twists[-1])
    assert not node.answers_after(paused_ns), "no step is made while paused"
    status = node.wait_for_status(is_running, lambda: node.pause(False))
    assert status.episode == episode


def test_a_reset_starts_an_episode_and_says_so(node):
    node.tell(OPEN)
    before = node.wait_for_status(lambda s: is_running(s) and s.step > 3)
    after = node.wait_for_status(
        lambda s: s.episode > before.episode and is_running(s), node.reset)
    assert after.reset_reason == "~/reset was called"


def test_the_gripper_is_commanded_again_where_somebody_may_have_moved_it(node):
    node.tell(OPEN)
    node.wait_until(lambda: node.openings)
    for ask in (node.reset, lambda: node.pause(True) and node.pause(False),
                lambda: node.set(dry_run=True) and node.set(dry_run=False)):
        node.wait_for_status(lambda s: is_running(s) and s.reason == Reason.NONE)
        node.drain()
        node.openings.clear()
        ask()
        node.wait_until(lambda: node.openings)


def test_an_episode_that_has_lasted_long_enough_ends_until_a_reset(node):
    node.tell(OPEN)
    status = node.wait_for_status(lambda s: s.state == STOPPED,
                                  lambda: node.set(episode__max_duration=0.5))
    assert status.reason == Reason.EPISODE_OVER and "~/reset" in status.detail
    over_ns = node.shown_ns
    stop_feeding_for_a_gap(node)
    assert node.set(episode__max_duration=3600).successful
    seen = node.diagnosed("images seen")
    node.wait_until(lambda: node.diagnosed("images seen") > seen + 10)
    assert not node.answers_after(over_ns), (
        "neither a gap nor a longer time sets it in motion again")
    assert node.set_all(**PATIENT).successful
    node.wait_for_status(is_running, node.reset)


def test_a_dry_run_sends_zero_first_and_then_commands_nothing(node):
    node.tell(OPEN)
    node.wait_for_status(is_running)
    status = node.wait_for_status(lambda s: is_running(s) and s.reason == Reason.DRY_RUN,
                                  lambda: node.set(dry_run=True))
    assert "dry_run" in status.detail
    node.wait_until(lambda: time.monotonic() - node.twist_times[-1] > 0.7
                    and not moves(node.twists[-1]))
    node.wait_until(lambda: not node.actions[-1].commanded)
    assert any(node.actions[-1].action)
    assert node.set(dry_run=False).successful
    node.wait_until(lambda: moves(node.twists[-1]))


def tell_pose(node, frame_id: str, x: float) -> None:
    pose = PoseStamped()
    pose.header.frame_id, pose.header.stamp = frame_id, to_time(node.now_ns())
    pose.pose.position.x, pose.pose.orientation.w = x, 1.0
    node.pose.publish(pose)


def test_the_target_starts_from_the_measured_pose_and_poses_of_other_frames_are_refused(node):
    node.tell(OPEN)
    node.wait_for_status(is_running)
    stop_feeding(node)
    node.targets.clear()
    node.wait_until(lambda: node.pose.get_subscription_count())

    def tell_poses() -> bool:
        tell_pose(node, "base_link", 5.5)
        tell_pose(node, "camera", 6.0)
        return True

    node.wait_until(lambda: tell_poses() and "poses are not transformed" in node.said())
    node.feeding = True
    node.wait_until(lambda: tell_poses() and node.targets)
    assert node.targets[0].pose.position.x == pytest.approx(5.5, abs=0.05)


def test_in_another_frame_nothing_of_the_frame_before_counts(node):
    node.tell(OPEN)
    node.wait_until(lambda: node.pose.get_subscription_count())
    assert node.reset().success
    node.targets.clear()
    node.wait_until(lambda: tell_pose(node, "base_link", 5.5) or node.targets)
    episode = node.wait_for_status(is_running).episode
    assert node.set(action__frame_id="other").successful
    count = len(node.actions)
    node.wait_until(lambda: sum(a.commanded and a.header.frame_id == "other"
                                for a in node.actions[count:]) >= 3)
    before, after = ([twist for twist in node.twists if twist.header.frame_id == frame_id]
                     for frame_id in ("base_link", "other"))
    assert not moves(before[-1]) and any(map(moves, after))
    assert {target.header.frame_id for target in node.targets} == {"base_link"}
    assert node.statuses[-1].episode == episode
    assert node.set(action__frame_id="base_link").successful


def test_a_workspace_needs_a_fresh_pose(node):
    node.tell(OPEN)
    node.wait_for_status(is_running)
    tell_pose(node, "base_link", 0.0)
    status = node.wait_for_status(
        lambda s: s.state == STOPPED and "end_effector/pose" in s.detail,
        lambda: node.set_all(safety__workspace_max=[1, 1, 1], safety__input_timeout=TIMEOUT_S))
    assert status.reason == Reason.INPUT_STALE
    assert node.set_all(**PATIENT).successful
    node.wait_for_status(is_running, lambda: node.set(safety__workspace_max=[1000, 1000, 1000]))


def test_the_debug_image_shows_both_pictures_while_somebody_looks(node):
    seen = []
    subscription = node.node.create_subscription(
        Image, "deer/debug_image", seen.append, qos_profile_sensor_data)
    node.tell(OPEN)
    node.wait_until(lambda: seen)
    assert seen[0].height == 240 and len(seen[0].data) == seen[0].step * 240
    node.node.destroy_subscription(subscription)


def test_diagnostics_tell_the_state_and_the_inputs(node):
    node.tell(OPEN)
    # The pose of another test is old by then.
    assert node.set(safety__input_timeout=TIMEOUT_S).successful
    late = "missing, old or ahead of time: end_effector/pose"
    node.wait_until(lambda: node.diagnosed("state", str) == "RUNNING"
                    and node.diagnosed("steps per second", float) > 2
                    and node.diagnostics[-1].status[1].message.startswith(late))
    assert node.diagnostics[-1].status[0].level == b"\x00"


def test_the_node_goes_through_its_states_with_zero_first_and_back(node):
    node.tell(OPEN)
    node.wait_for_status(is_running)
    assert node.state() == "active"
    status = node.wait_for_status(
        lambda s: s.state == State.INACTIVE, lambda: node.change_state("deactivate"))
    assert status.reason == Reason.DEACTIVATED
    node.wait_until(lambda: not moves(node.twists[-1]))
    assert node.change_state("cleanup") and node.state() == "unconfigured"
    count = len(node.diagnostics)
    node.wait_until(lambda: len(node.diagnostics) > count)
    for wrong in ("activate", Transition.TRANSITION_ACTIVATE, "fly"):
        assert not node.change_state(wrong), "there is nothing to activate"

    assert node.set(model_sha256="0" * 64).successful, "it may be set while unconfigured"
    assert not node.change_state("configure") and node.state() == "unconfigured"
    assert "model_sha256 asks for" in node.said()
    assert node.set(model_sha256="").successful
    assert node.change_state("configure") and node.change_state("activate")
    assert node.wait_for_status(is_running).reset_reason == "activated"
