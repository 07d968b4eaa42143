"""What is said of a step: the fields of EndEffectorAction and PolicyStatus, but for the header.

Plain values by field name; stamps, whose names end in `_stamp`, in nanoseconds. Whoever has message
classes, ROS's or a bag's, makes messages of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deer_ros.stepping.budgets import NAMES
from deer_ros.stepping.stepper import Account, Stepper

if TYPE_CHECKING:
    from deer_ros.budget.budget import Budget
    from deer_ros.policy import Step

COSTS = ("vision_gflops", "language_gflops", "head_gflops", "preprocessing_ms", "vision_ms",
         "language_ms", "head_ms", "step_ms")


def action(account: Account) -> dict[str, Any]:
    """Of an EndEffectorAction. A step without an answer is an action of zeros, not commanded."""
    fields = {
        "static_stamp": account.pair.static.stamp_ns,
        "gripper_stamp": account.pair.gripper.stamp_ns,
        "instruction": account.instruction,
        "episode": account.episode,
        "step": account.number,
        "commanded": account.commanded,
    }
    if account.step is not None:
        fields |= {
            "action": account.step.action,
            "gripper": account.step.gripper,
            "gripper_probability": account.step.gripper_probability,
            "exit_layer": account.step.exit_layer,
            "executions": account.plan.semantics.executions_per_step,
        }
    return fields


def status(stepper: Stepper, account: Account | None) -> dict[str, Any]:
    """Of a PolicyStatus. account: of the step that it tells of, None for a stop between steps."""
    safety, episode, sampler = stepper.safety, stepper.episode, stepper.sampler
    averages = stepper.record.since_change
    fields = {
        "instruction": stepper.instruction,
        "episode": episode.number,
        "step": episode.step,
        "state": int(safety.state),
        "reason": int(safety.reason),
        "detail": safety.detail,
        "reset_reason": episode.reset_reason,
        "average_llm_gflops": averages.mean("llm_gflops"),
        "average_step_gflops": averages.mean("step_gflops"),
        "average_step_ms": averages.mean("step_ms"),
        "averaged_steps": averages.steps,
        "images_seen": sampler.seen,
        "images_used": sampler.used,
        "images_refused": sampler.refused,
    }
    if account is not None:
        fields |= _of_account(account)
    elif stepper.plan is not None:
        plan = stepper.plan
        fields |= {
            "settings_version": plan.settings.version,
            "max_layer": plan.rule.exits[-1],
            "thresholds": list(plan.rule.thresholds),
        } | _of_budget(plan.budget)
        if stepper.last is not None:
            fields |= _in_force(stepper.last)
    return fields


def _of_account(account: Account) -> dict[str, Any]:
    fields = {
        "static_stamp": account.pair.static.stamp_ns,
        "gripper_stamp": account.pair.gripper.stamp_ns,
        "skew_s": account.pair.skew_s,
        "age_s": account.age_s,
        "instruction": account.instruction,
        "episode": account.episode,
        "step": account.number,
        "settings_version": account.plan.settings.version,
        "clamped": list(account.clamped),
    } | _in_force(account) | _of_budget(account.plan.budget)
    return fields if account.step is None else fields | _of_step(account.step)


def _in_force(account: Account) -> dict[str, Any]:
    return {
        "max_layer": account.max_layer,
        "thresholds": list(account.thresholds),
        "budget_binding": account.binding,
        "budget_unmet": account.unmet,
    }


def _of_budget(budget: Budget | None) -> dict[str, Any]:
    """What was asked for."""
    if budget is None:
        return {}
    values = {f"budget_{name}": getattr(budget, name) for name in NAMES}
    return {name: 0.0 if value is None else value for name, value in values.items()}


def _of_step(step: Step) -> dict[str, Any]:
    costs = {name: float(getattr(step.cost, name)) for name in COSTS}
    return {
        "exit_layer": step.exit_layer,
        "deltas": step.deltas,
        "stopped_by": step.stopped_by,
    } | costs
