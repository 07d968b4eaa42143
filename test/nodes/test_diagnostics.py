"""What /diagnostics says, without a graph."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import ROSClock
from step_bench import MS, Bench

from deer_ros.nodes.policy.diagnostics import Diagnostics

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
BOX = {"safety.workspace_max": [1, 1, 1]}


def diagnosed(bench: Bench, problem: str = "") -> tuple[DiagnosticStatus, DiagnosticStatus]:
    """Of the policy, and of its inputs."""
    published = []
    node = SimpleNamespace(
        get_name=lambda: "deer", get_clock=ROSClock,
        create_publisher=lambda *_: SimpleNamespace(publish=published.append))
    stepper = bench.stepper
    loop = SimpleNamespace(
        stepper=stepper, input_ages=lambda: stepper.input_ages(bench.now_ms * MS))
    diagnostics = Diagnostics(node, loop, lambda: stepper.plan.settings)
    diagnostics.problem = problem
    diagnostics.publish()
    return tuple(published[0].status)


@pytest.mark.parametrize("late_ms, level", [(0, OK), (400, OK), (600, WARN), (-600, WARN)])
def test_cameras_whose_stamps_are_far_from_now_are_warned_of(late_ms, level):
    bench = Bench()
    bench.show(late_ms=late_ms)
    _, inputs = diagnosed(bench)
    assert inputs.level == level
    assert ("camera/static/image" in inputs.message) == (level == WARN)


@pytest.mark.parametrize("changes, level", [({}, OK), (BOX, WARN)])
@pytest.mark.parametrize("late_ms", [600, -600, None])
def test_a_pose_that_is_needed_is_warned_of_and_another_only_named(changes, level, late_ms):
    bench = Bench(**changes)
    bench.show()
    if late_ms is not None:
        bench.tell_pose(0.0, late_ms)
    _, inputs = diagnosed(bench)
    assert "end_effector/pose" in inputs.message and inputs.level == level
    bench.stepper.safety.active = False
    assert diagnosed(bench)[1].level == OK, "nothing is to be done"


def test_a_node_that_could_not_be_configured_is_an_error_with_its_reason():
    bench = Bench()
    bench.stepper.safety.active = False
    policy, _ = diagnosed(bench, "there is no such model.")
    assert (policy.level, policy.message) == (ERROR, "there is no such model.")
