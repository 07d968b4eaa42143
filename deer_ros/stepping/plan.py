"""What the settings and the model say together."""

from __future__ import annotations

from dataclasses import dataclass

from deer_ros.budget.budget import Budget
from deer_ros.budget.cadence import Cadence
from deer_ros.control.command import MODEL_JUMP, ActionSemantics, Limits, needs_pose
from deer_ros.data.episode import POSE_NAMES, joint_names
from deer_ros.exit_rule import ExitRule
from deer_ros.model.config import DeerConfig
from deer_ros.stepping.settings import Settings

SIMULATION_MODEL = (
    "the model was trained in simulation; set the parameter allow_simulation_model to let it move "
    "a robot."
)
DRY_RUN = "the parameter dry_run is on."


@dataclass(frozen=True)
class Plan:
    """Everything that a step obeys, immutable, so that a step sees one whole.

    control_rate_hz: steps per second at most. dry: why nothing is commanded, or None.
    budget: what steps may cost, instead of the rule's thresholds; None where there is none, or none
    is kept.
    layout: what the model reads of the robot's own state, by name. cadence: which steps decide
    under a budget; None: the model may choose.
    """

    settings: Settings
    semantics: ActionSemantics
    limits: Limits
    rule: ExitRule
    control_rate_hz: float
    max_duration_s: float
    dry: str | None
    budget: Budget | None = None
    layout: tuple[str, ...] = ()
    cadence: Cadence | None = None

    @classmethod
    def of(cls, settings: Settings, config: DeerConfig) -> Plan:
        """Zeros of the settings filled in from the model. Raises ValueError as check_whole does."""
        action = config.action
        semantics = ActionSemantics(
            rate_hz=action.rate_hz,
            frame=action.frame,
            rotation=action.rotation,
            reference=action.reference,
            linear_scale=settings.action_linear_scale or action.linear_scale,
            angular_scale=settings.action_angular_scale or action.angular_scale,
            executions_per_step=action.executions_per_step,
        )
        limits = Limits(
            settings.safety_max_linear_velocity or semantics.max_linear_velocity,
            settings.safety_max_angular_velocity or semantics.max_angular_velocity,
            settings.safety_workspace_min,
            settings.safety_workspace_max,
            settings.safety_max_jump or MODEL_JUMP,
        )
        from_simulation = config.trained_in == "simulation"
        dry = None
        if from_simulation and not settings.allow_simulation_model:
            dry = SIMULATION_MODEL
        if settings.dry_run:
            dry = DRY_RUN
        return cls(
            settings=settings,
            semantics=semantics,
            limits=limits,
            rule=settings.exit_rule(config),
            control_rate_hz=settings.control_rate or semantics.step_rate_hz,
            max_duration_s=settings.episode_max_duration
            or config.max_episode_steps / action.rate_hz,
            dry=dry,
            budget=settings.kept_budget(),
            layout=_layout(config),
            cadence=settings.cadence(config),
        )

    @property
    def step_timeout_s(self) -> float:
        """How long a step may last before its answer no longer counts."""
        timeout_s = self.settings.safety_step_timeout
        if self.budget is None or self.budget.latency_ms is None:
            return timeout_s
        latency_s = 1e-3 * self.budget.latency_ms
        return min(timeout_s, latency_s + max(latency_s, self.semantics.period_s))

    def costs_as(self, other: Plan) -> bool:
        """Whether steps may cost the same, and go by the same rule."""
        return self.spends == other.spends

    @property
    def spends(self) -> tuple:
        """What decides on a step's cost."""
        return self.budget, self.rule, self.cadence

    @property
    def budget_arguments(self) -> dict[str, object]:
        """Arguments that a policy takes with the budget."""
        cadence = {} if self.cadence is None else self.cadence.arguments
        return {"max_layer": self.rule.exits[-1], "metric": self.rule.metric, **cadence}

    @property
    def needs_pose(self) -> bool:
        """Whether no step may be commanded without the end effector's pose."""
        is_read = not set(POSE_NAMES).isdisjoint(self.layout)
        return is_read or needs_pose(self.semantics, self.limits)

    def warnings(self) -> list[str]:
        """What is allowed, but worth a word."""
        sentences = []
        trained_hz = self.semantics.step_rate_hz
        if self.control_rate_hz != trained_hz:
            sentences.append(
                f"control_rate is {self.control_rate_hz:g} Hz; the model was trained at "
                f"{trained_hz:g} Hz, and an action lasts {1e3 / trained_hz:.0f} ms."
            )
        asked = self.settings.budget()
        if self.budget is None and asked is not None:
            sentences.append(
                f"exit.policy is fixed, so that no budget is kept: "
                f"{', '.join(f'budget.{name}' for name in asked.limits)} are without effect."
            )
        if self.dry is not None:
            sentences.append(f"dry run, nothing is commanded: {self.dry}")
        return sentences


def _layout(config: DeerConfig) -> tuple[str, ...]:
    """What the model reads of the robot itself. ValueError for what no topic says."""
    layout = () if config.proprioception is None else config.proprioception.layout
    a_joint = joint_names([""])[0]
    unknown = [name for name in layout if name not in POSE_NAMES and not name.startswith(a_joint)]
    if unknown:
        raise ValueError(
            f"the model reads {', '.join(unknown)} of the robot itself; a node knows "
            f"{', '.join(POSE_NAMES)} and {a_joint}NAME."
        )
    return layout
