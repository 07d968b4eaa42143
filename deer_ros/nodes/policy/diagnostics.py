"""/diagnostics, once a second, also while inactive: for a robot's monitor and for people."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.qos import QoSProfile

from deer_ros.control.safety import FAULTS, OF_INPUTS, Reason, State, stale
from deer_ros.nodes.policy.loop import PolicyLoop
from deer_ros.stepping.settings import Settings
from deer_ros.stepping.stepper import Stepper

# Inputs come back by themselves; these faults are somebody's to mend.
_FAULTS = FAULTS - OF_INPUTS - {Reason.CLOCK_JUMPED}
_QUIET_STATES = (State.RUNNING, State.PAUSED, State.INACTIVE)


class Diagnostics:
    """Publishes one status about the policy and one about its inputs.

    problem: why the node could not be configured, or empty.
    """

    def __init__(self, node: Node, loop: PolicyLoop, settings: Callable[[], Settings]) -> None:
        self._node = node
        self._loop = loop
        self._settings = settings
        self.problem = ""
        self._reported_s = time.monotonic()
        self._publisher = node.create_publisher(
            DiagnosticArray, "/diagnostics", QoSProfile(depth=10))

    def publish(self) -> None:
        """To be called once a second."""
        message = DiagnosticArray(status=[self._policy(), self._inputs()])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)

    def _policy(self) -> DiagnosticStatus:
        loop, settings = self._loop.stepper, self._settings()
        safety, plan = loop.safety, loop.plan
        now_s = time.monotonic()
        elapsed_s, self._reported_s = now_s - self._reported_s, now_s
        totals = loop.record.take_report()
        values = {
            "state": safety.state.name,
            "reason": safety.reason.name,
            "last stop": "none" if safety.last is None else (
                f"{safety.last.reason.name}: {safety.last.detail}"),
            "latched": "no" if safety.latched is None else safety.latched.reason.name,
            "model": settings.model,
            "settings version": settings.version,
            "instruction": loop.instruction,
            "episode": loop.episode.number,
            "step": loop.episode.step,
            "last reset": loop.episode.reset_reason,
            "steps per second": f"{totals.steps / elapsed_s:.1f}",
            "exits": ", ".join(f"layer {layer}: {count}"
                               for layer, count in sorted(totals.exits.items())),
            "mean exit layer": f"{totals.mean('layers'):.2f}",
            "mean model time [ms]": f"{totals.mean('step_ms'):.1f}",
            "longest model time [ms]": f"{totals.worst_ms:.1f}",
            "memory [MiB]": f"{resident_mib():.0f}",
            "mean llm GFLOPs": f"{totals.mean('llm_gflops'):.4f}",
            "mean step GFLOPs": f"{totals.mean('step_gflops'):.4f}",
        }
        if plan is not None:
            values["steps per second asked"] = f"{plan.control_rate_hz:g}"
            values["dry run"] = plan.dry or "no"
            values["deepest layer"] = plan.rule.exits[-1]
            values |= _budget(loop)
        text = self.problem or safety.detail or safety.state.name.lower()
        return _status(self._name("policy"), self._level(), text, values)

    def _level(self) -> bytes:
        safety = self._loop.stepper.safety
        if self.problem or safety.latched is not None or (
                safety.state is State.STOPPED and safety.reason in _FAULTS):
            return DiagnosticStatus.ERROR
        is_quiet = safety.state in _QUIET_STATES or safety.reason is Reason.NONE
        return DiagnosticStatus.OK if is_quiet else DiagnosticStatus.WARN

    def _inputs(self) -> DiagnosticStatus:
        sampler, timeout_s = self._loop.stepper.sampler, self._settings().safety_input_timeout
        values = {"images seen": sampler.seen, "images used": sampler.used,
                  "images refused": sampler.refused}
        late = []
        for source in self._loop.input_ages():
            shown = "nothing has come" if source.age_s is None else f"{source.age_s:.3f}"
            values[f"age of {source.name} [s]"] = shown
            if stale([source], timeout_s) is not None:
                late.append(source)
        is_active = self._loop.stepper.safety.active
        text, level = "all inputs are fresh", DiagnosticStatus.OK
        if late:
            text = f"missing, old or ahead of time: {', '.join(source.where for source in late)}"
        if is_active and any(source.is_needed for source in late):
            level = DiagnosticStatus.WARN
        return _status(self._name("inputs"), level, text, values)

    def _name(self, part: str) -> str:
        return f"{self._node.get_name()}: {part}"


def resident_mib() -> float:
    """Memory of this process, as the kernel counts it."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _budget(stepper: Stepper) -> dict[str, object]:
    """What is asked, what decides, and what has been spent since then."""
    budget, last, spent = stepper.plan.budget, stepper.last, stepper.record.since_change
    if budget is None:
        return {"budget": "none"}
    asked = [f"{name} {value:g}" for name, value in budget.limits.items()]
    values = {
        "budget": f"{', '.join(asked)} (scope {budget.scope}, solver {budget.solver})",
        "budget spent": f"{spent.mean('llm_gflops'):.6g} llm GFLOPs, "
                        f"{spent.mean('step_gflops'):.6g} step GFLOPs, "
                        f"{spent.mean('step_ms'):.1f} ms a step in {spent.steps} steps",
    }
    if last is not None:
        values["budget decided by"] = last.binding
        values["budget unmet"] = last.unmet or "no"
    return values


def _status(name: str, level: bytes, message: str, values: dict[str, object]) -> DiagnosticStatus:
    pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
    return DiagnosticStatus(name=name, level=level, message=message, values=pairs)
