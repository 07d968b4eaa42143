"""How the policy node starts and ends."""

from __future__ import annotations

import signal
import time

import pytest
from counts import count
from diagnostic_msgs.msg import DiagnosticStatus
from policy_client import PATIENT, moves, running_policy
from rosgraph_msgs.msg import Clock
from stillness import on_time
from tiny_model import write_tiny_model

from deer_ros.control.safety import Reason, State
from deer_ros.nodes.stamps import to_nanoseconds, to_time

pytestmark = pytest.mark.clock

# What a stopped node promises, in seconds.
END_S = 2.0
# Where the promise is not what is tried.
WAIT_S = 60.0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.mark.robot
@pytest.mark.parametrize("run", range(count(10, 1)))
@pytest.mark.parametrize("moment", ["idle", "stepping", "in the middle of a long step"])
@pytest.mark.parametrize(
    "wanted", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)]
)
def test_a_signal_sends_zero_last_and_ends_the_node_with_success(
    tmp_path, model, wanted, moment, run
):
    on_time(lambda: send_signal(tmp_path, model, wanted, moment, run))


def send_signal(folder, model, wanted, moment, run) -> None:
    instruction = "open the drawer" if moment == "stepping" else "think long"
    with running_policy(folder, model=model, allow_simulation_model=True, **PATIENT) as node:
        if moment == "idle":
            # What it says at its end is heard by whoever has heard it before.
            node.wait_until(lambda: node.state() == "active" and node.statuses)
        else:
            node.tell(instruction)
            node.wait_for_status(
                lambda s: s.state == State.RUNNING and s.instruction == instruction)
            # Right after a result the next pair is taken: where steps are long, the signal comes in
            # the middle of one, and at another moment of it in every run.
            node.wait_for_status(lambda s: s.state == State.RUNNING)
            time.sleep(0.04 * run)
        started_s = time.monotonic()
        assert node.end(wanted, END_S) == 0
        assert time.monotonic() - started_s < END_S
        node.wait_until(lambda: wanted.name in node.statuses[-1].detail)
        node.drain()
        assert node.statuses[-1].reason in (Reason[wanted.name], Reason.NO_INSTRUCTION)
        assert "Traceback" not in node.said()
        if moment == "idle":
            assert not any(map(moves, node.twists))
            return
        assert node.statuses[-1].reason == Reason[wanted.name]
        assert node.twists and not moves(node.twists[-1])
        last_move_s = max(
            at for at, twist in zip(node.twist_times, node.twists) if moves(twist))
        assert node.twist_times[-1] >= last_move_s
        assert "cadence: " in node.said()


def test_a_missing_model_leaves_the_node_unconfigured_until_it_is_corrected(tmp_path, model):
    wrong = {"executor": "quick", "exit__thresholds": [0.5, 0.5]}
    with running_policy(tmp_path, model="/no/such/place", **wrong) as node:
        node.wait_until(lambda: "no model directory /no/such/place" in node.said())
        assert node.state() == "unconfigured"
        node.wait_until(lambda: node.diagnostics
                        and node.diagnostics[-1].status[0].level == DiagnosticStatus.ERROR)
        assert "no model directory /no/such/place" in node.diagnostics[-1].status[0].message
        assert "executor is 'quick'; allowed: single_threaded, events. The default" in node.said()

        broken = tmp_path / "broken"
        broken.mkdir()
        (broken / "config.json").write_text("{")
        assert node.set(model=str(broken)).successful
        assert not node.change_state("configure") and node.state() == "unconfigured"
        assert "broken" in node.said()

        assert node.set(model=model).successful
        assert node.change_state("configure") and node.change_state("activate")
        assert node.state() == "active"
        node.wait_until(
            lambda: node.diagnostics[-1].status[0].level != DiagnosticStatus.ERROR)
        assert "exit.thresholds has 2 numbers; the model needs 3" in node.said()
        assert node.get("exit.thresholds") == pytest.approx([0.01, 0.01, 1e9])
        assert "allow_simulation_model" in node.said(), "it says why it runs dry"
        node.tell("open the drawer")
        dry = node.wait_for_status(lambda s: s.state == State.RUNNING)
        assert dry.reason == Reason.DRY_RUN and "allow_simulation_model" in dry.detail
        assert "Traceback" not in node.said()
        assert node.end(signal.SIGTERM, WAIT_S) == 0
        node.drain()
        assert not node.twists and not node.openings, "a dry run never commands"


@pytest.mark.long
def test_the_events_executor_and_compressed_pictures_drive_the_node_too(tmp_path, model):
    with running_policy(tmp_path, model=model, executor="events", image__transport="compressed",
                        image__reliability="reliable", allow_simulation_model=True) as node:
        node.tell("open the drawer")
        node.wait_for_status(lambda s: s.state == State.RUNNING and s.step > 5)
        node.wait_for_status(lambda s: s.max_layer == 2, lambda: node.set(exit__max_layer=2))
        node.feeding = False
        node.wait_for_status(lambda s: s.reason == Reason.INPUT_STALE)
        # However long the pictures that follow are under way, they count.
        assert node.set_all(**PATIENT).successful
        cut_off = node.picture()
        cut_off.data = cut_off.data[:-10]
        used, refused = node.statuses[-1].images_used, node.statuses[-1].images_refused
        status = node.wait_for_status(lambda s: s.images_refused == refused + 2,
                                      lambda: node.show(cut_off, cut_off))
        assert status.images_used == used
        assert "a JPEG picture is cut off" in node.said()
        # A pair that cannot be read is answered all the same.
        node.wait_until(lambda: node.answers_to(node.shown_ns))
        assert not node.answers_to(node.shown_ns)[-1].commanded
        assert node.end(signal.SIGTERM, WAIT_S) == 0
        node.drain()
        assert not moves(node.twists[-1])


def test_in_simulated_time_a_command_lasts_as_long_as_the_simulators_clock_says(tmp_path, model):
    start_ns, ms = 100 * 10**9, 10**6
    with running_policy(tmp_path, model=model, use_sim_time=True, instruction="open the drawer",
                        allow_simulation_model=True) as node:
        node.wait_until(lambda: node.diagnostics and node.static.get_subscription_count()
                        and node.clock.get_subscription_count() and node.state() == "active")

        def step_at(now_ns: int) -> None:
            """Pictures until one pair has been answered: best effort may lose some."""
            def answered():
                return [a for a in node.actions if to_nanoseconds(a.static_stamp) == now_ns]
            while not answered():
                node.show_at(now_ns)
                node.wait_until(lambda: answered() or node._is_due())

        def moved_at(now_ns: int) -> bool:
            """Zero may have followed already: the clock stands."""
            return any(moves(twist) and to_nanoseconds(twist.header.stamp) == now_ns
                       for twist in node.twists)

        step_at(start_ns)
        node.wait_until(lambda: moved_at(start_ns))
        node.wait_until(lambda: not moves(node.twists[-1]))
        assert to_nanoseconds(node.twists[-1].header.stamp) == start_ns, "the clock stands still"
        count, sent = len(node.diagnostics), len(node.twists)
        node.wait_until(lambda: len(node.diagnostics) > count + 1)
        assert len(node.twists) == sent, "one zero is enough"
        assert node.statuses[-1].state == State.RUNNING, "and nothing has become old"
        node.clock.publish(Clock(clock=to_time(start_ns + 10 * ms)))
        node.wait_until(lambda: moved_at(start_ns + 10 * ms))
        node.clock.publish(Clock(clock=to_time(start_ns + 50 * ms)))
        node.wait_until(
            lambda: to_nanoseconds(node.twists[-1].header.stamp) == start_ns + 50 * ms)
        assert not moves(node.twists[-1])

        step_at(start_ns + 60 * ms)
        node.wait_until(lambda: moved_at(start_ns + 60 * ms))
        episode = node.statuses[-1].episode
        node.wait_for_status(lambda s: s.reason == Reason.CLOCK_JUMPED,
                             lambda: node.clock.publish(Clock(clock=to_time(10 * 10**9))))
        node.wait_until(lambda: not moves(node.twists[-1]))
        step_at(10 * 10**9)
        status = node.wait_for_status(
            lambda s: s.state == State.RUNNING, lambda: step_at(10 * 10**9 + 50 * ms))
        assert status.episode == episode + 1 and status.reset_reason == "clock jumped"
