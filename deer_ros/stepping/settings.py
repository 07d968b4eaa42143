"""Every parameter of the policy node, said once.

The fields of `Settings` are the table: defaults, units, what is allowed and what it means. The
values of a step are one `Settings`, which never changes; a change of parameters makes another one.
Nothing here needs ROS. `python -m deer_ros.stepping.settings` prints docs/parameters.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_origin, get_type_hints

from deer_ros.budget.budget import SCOPES, SOLVERS, Budget
from deer_ros.budget.cadence import Cadence
from deer_ros.control.command import NO_WORKSPACE_M
from deer_ros.exit_rule import ExitRule
from deer_ros.model.config import FASTEST_HZ, METRICS, SLOWEST_HZ, DeerConfig
from deer_ros.stepping.budgets import DEFAULT_PRESETS, combined, read_presets
from deer_ros.stepping.table import (
    ANY_TEXT,
    START,
    TRUTH,
    UNCONFIGURED,
    Allowed,
    Row,
    above_zero,
    between,
    matching,
    number,
    numbers,
    one_of,
    parameter,
    zero_or,
)

# ROS cannot say infinity in a parameter that refuses it; no difference of two actions is as large.
ALWAYS = 1e9
NEVER = -1.0
MODELS_OWN = "auto"


THRESHOLDS = Allowed("finite numbers, one per exit of the model", lambda values: len(values) > 0)


@dataclass(frozen=True)
class Settings:
    """One consistent set of values. version counts the accepted changes from 1."""

    version: int = 1

    model: str = parameter(
        "model", "bundled", "", ANY_TEXT,
        "Model directory, `bundled` for the one that comes with the package, or `owner/name` on "
        "the Hugging Face hub.", UNCONFIGURED)
    device: str = parameter(
        "device", "auto", "", matching(r"auto|cpu|cuda(:\d+)?", "auto, cpu, cuda, cuda:N"),
        "Where the model runs; `auto` is a GPU if there is one.", UNCONFIGURED)
    dtype: str = parameter(
        "dtype", "auto", "", one_of("auto", "float32", "bfloat16", "float16"),
        "Precision of the weights; `auto` is as stored.", UNCONFIGURED)
    model_sha256: str = parameter(
        "model_sha256", "", "", matching(r"([0-9a-fA-F]{64})?", "64 hexadecimal digits, or empty"),
        "SHA-256 that the weights (model.safetensors, or its shards one after the other) must have "
        "to be loaded; empty: not checked.", UNCONFIGURED)
    autostart: bool = parameter(
        "autostart", True, "", TRUTH, "Configure and activate on start.", START)
    instruction: str = parameter(
        "instruction", "", "", ANY_TEXT,
        "What to do, as text; the same as the topic, and whichever comes last holds. Empty: none, "
        "the robot stands.")
    control_rate: float = parameter(
        "control_rate", 0.0, "Hz", zero_or(SLOWEST_HZ, FASTEST_HZ),
        "Steps per second at most; 0: the model's. Another rate than the model's is warned of.")
    command_rate: float = parameter(
        "command_rate", 30.0, "Hz", number(1, 1000), "Twist messages per second.")
    dry_run: bool = parameter(
        "dry_run", False, "", TRUTH,
        "Everything runs, but ~/twist, ~/target_pose and ~/gripper stay silent. Turning it on "
        "sends zero first.")
    allow_simulation_model: bool = parameter(
        "allow_simulation_model", False, "", TRUTH,
        "Let a model that was trained in simulation move the robot. Without it the node runs dry "
        "with such a model.", UNCONFIGURED)

    exit_policy: str = parameter(
        "exit.policy", "budget", "", one_of("budget", "fixed"),
        "`budget`: as deep as the budgets allow; while none is set, to the deepest permitted exit. "
        "`fixed`: leave at the first exit whose delta is at most its threshold in exit.thresholds; "
        "no budget is kept then, a peak, a memory and a latency neither.")
    exit_thresholds: tuple[float, ...] = parameter(
        "exit.thresholds", (), "", THRESHOLDS,
        "Used with exit.policy `fixed`. The default is the model's own, shown once it is loaded. "
        f"Below 0: this exit is never taken ({NEVER:g} in the default). The deepest permitted exit "
        f"is always taken, whatever its number ({ALWAYS:g} in the default).")
    exit_metric: str = parameter(
        "exit.metric", MODELS_OWN, "", one_of(MODELS_OWN, *METRICS),
        "What thresholds are held against: how two successive exits' pose actions differ, or, with "
        "`learned`, what the head guesses to lose against full depth, if the model has learned "
        f"that. `{MODELS_OWN}`: the model's own.")
    exit_steps_per_decision: int = parameter(
        "exit.steps_per_decision", 0, "steps", number(0, 1000),
        "The criterion is asked every so many steps; in between the exit stays. 0: as the model's "
        "own rule says, where thresholds or an average decide; at every step where no budget of an "
        "average is kept, or one that leaves more to spend, or an action error is.")
    exit_max_layer_between: int = parameter(
        "exit.max_layer_between", -1, "layers", number(-1, 10000),
        "How deep steps may go between two decisions, rounded down to an exit; 0: as deep as was "
        "decided; -1: as the model's own rule says.")
    exit_max_layer: int = parameter(
        "exit.max_layer", 0, "layers", number(0, 10000),
        "Deepest layer that may run, rounded down to an exit; 0: all. Deeper layers are not kept "
        "in memory; raising it reads them while steps go on.")

    budget_average_gflops: float = parameter(
        "budget.average_gflops", 0.0, "GFLOPs", number(0, 1e9),
        "What a step may cost on average, counted in budget.scope: 1e9 multiply-adds; 0: no such "
        "budget. Of all budgets that are set, the tightest holds; one that cannot be met is "
        "refused with what can.")
    budget_peak_gflops: float = parameter(
        "budget.peak_gflops", 0.0, "GFLOPs", number(0, 1e9),
        "What no step may exceed, counted in budget.scope; 0: no such budget.")
    budget_average_ms: float = parameter(
        "budget.average_ms", 0.0, "ms", number(0, 1e9),
        "What a step may take on average, as measured; 0: no such budget.")
    budget_latency_ms: float = parameter(
        "budget.latency_ms", 0.0, "ms", number(0, 1e9),
        "Deadline of every step from its start: it answers from the deepest exit that fits; 0: no "
        "such budget.")
    budget_memory_mib: float = parameter(
        "budget.memory_mib", 0.0, "MiB", number(0, 1e9),
        "Weights that may be resident: layers that do not fit are not kept in memory; 0: no such "
        "budget.")
    budget_max_action_error: float = parameter(
        "budget.max_action_error", 0.0, "action", number(0, 1e9),
        "Expected root mean square difference to the full-depth action that is allowed, as cheap "
        "as that permits; 0: no such budget.")
    budget_confidence: float = parameter(
        "budget.confidence", 0.9, "", between(0, 1),
        "Probability with which budget.max_action_error holds.")
    budget_scope: str = parameter(
        "budget.scope", "llm", "", one_of(*SCOPES),
        "What the GFLOPs of budgets count: `llm` the decoder layers alone, as the DeeR paper does, "
        "`step` the whole step.")
    budget_solver: str = parameter(
        "budget.solver", "optimal", "", one_of(*SOLVERS),
        "How thresholds are found for an average.")
    budget_tracking: bool = parameter(
        "budget.tracking", True, "", TRUTH,
        "Keep averages in a closed loop, whatever the steps turn out to cost.")
    budget_presets: str = parameter(
        "budget.presets", DEFAULT_PRESETS, "", ANY_TEXT,
        "Named sets of budgets, a YAML mapping of names to budgets without `budget.` in front. The "
        "default ones are for the bundled model.")
    budget_preset: str = parameter(
        "budget.preset", "", "", ANY_TEXT,
        "One of budget.presets, or empty: its budgets hold beside those that are set one by one, "
        "of the same budget the tighter; a scope, solver, tracking or confidence that it names "
        "goes before the parameter.")

    image_transport: str = parameter(
        "image.transport", "raw", "", one_of("raw", "compressed"),
        "`raw`: sensor_msgs/Image; `compressed`: CompressedImage on .../compressed.", UNCONFIGURED)
    image_reliability: str = parameter(
        "image.reliability", "best_effort", "", one_of("best_effort", "reliable"),
        "Of the images' subscriptions.", UNCONFIGURED)
    image_max_skew: float = parameter(
        "image.max_skew", 0.05, "s", number(0, 10),
        "Largest difference of the two cameras' stamps in one step.")

    safety_input_timeout: float = parameter(
        "safety.input_timeout", 0.5, "s", above_zero(60),
        "Age after which an input is stale and the robot stops; a longer gap in a camera's stamps "
        "starts a new episode.")
    safety_frozen_image_timeout: float = parameter(
        "safety.frozen_image_timeout", 2.0, "s", number(0, 3600),
        "A camera that sends the same bytes for longer, while steps move the robot, stops it until "
        "another picture comes; 0: never.")
    safety_step_timeout: float = parameter(
        "safety.step_timeout", 2.0, "s", above_zero(3600),
        "A step that lasts longer stops the robot, and its answer is dropped; with "
        "budget.latency_ms already one that lasts twice as long as that, and a period longer.")
    safety_recovery: str = parameter(
        "safety.recovery", "auto", "", one_of("auto", "latched"),
        "After a fault, `auto`: the robot goes on once all is well again; `latched`: not before "
        "~/reset is called. What was latched stays so, whatever is set later.")
    safety_max_jump: float = parameter(
        "safety.max_jump", 0.0, "action", number(0, 1000),
        "Largest change of each of the action's six values from one period to the next, in the "
        "model's units and from 0 after a stop; changes beyond are shortened. 0: the model's whole "
        "range, 2.")
    safety_max_linear_velocity: float = parameter(
        "safety.max_linear_velocity", 0.0, "m/s", number(0, 1000),
        "Largest speed; commands beyond are shortened. 0: what the model's largest action means.")
    safety_max_angular_velocity: float = parameter(
        "safety.max_angular_velocity", 0.0, "rad/s", number(0, 1000),
        "Largest angular speed; commands beyond are shortened. 0: what the model's largest action "
        "means.")
    safety_workspace_min: tuple[float, ...] = parameter(
        "safety.workspace_min", (-NO_WORKSPACE_M,) * 3, "m",
        numbers(3, -NO_WORKSPACE_M, NO_WORKSPACE_M),
        "Lowest x, y, z of the end effector in action.frame_id: twist components that lead out are "
        f"zeroed, the target stays inside. -{NO_WORKSPACE_M:g}: off. Below the maximum: where a "
        "whole box moves, set both at once.")
    safety_workspace_max: tuple[float, ...] = parameter(
        "safety.workspace_max", (NO_WORKSPACE_M,) * 3, "m",
        numbers(3, -NO_WORKSPACE_M, NO_WORKSPACE_M),
        f"Highest x, y, z of the end effector, likewise. {NO_WORKSPACE_M:g}: off.")
    episode_max_duration: float = parameter(
        "episode.max_duration", 0.0, "s", number(0, 86400),
        "Then the robot stops until a new instruction or ~/reset; 0: the model's.")

    action_frame_id: str = parameter(
        "action.frame_id", "base_link", "", matching(r"\S+", "the name of a frame, not empty"),
        "Frame of the commands and of end_effector/pose: the robot's base.")
    action_linear_scale: float = parameter(
        "action.linear_scale", 0.0, "m", number(0, 10),
        "Metres per unit of action; 0: the model's.")
    action_angular_scale: float = parameter(
        "action.angular_scale", 0.0, "rad", number(0, 10),
        "Radians per unit of action; 0: the model's.")
    gripper_hysteresis: float = parameter(
        "gripper.hysteresis", 0.1, "", number(0, 0.5),
        "The probability of an open gripper must pass 0.5 by this much before the gripper changes.")
    executor: str = parameter(
        "executor", "single_threaded", "", one_of("single_threaded", "events"),
        "How callbacks are run; `events` is quicker where this ROS release has it.", START)

    def replaced(self, changes: Mapping[str, Any], config: DeerConfig | None) -> Settings:
        """A copy with some values exchanged, by parameter name, and the next version.

        config: of the loaded model, if one is. Raises ValueError with a sentence if a value, or the
        whole that comes out, is not allowed.
        """
        fields = {FIELDS[name]: ROWS[name].convert(value) for name, value in changes.items()}
        changed = dataclasses.replace(self, version=self.version + 1, **fields)
        changed.check_whole(config)
        return changed

    def check_whole(self, config: DeerConfig | None) -> None:
        """Raises ValueError where values do not go together, or not with the model."""
        box = zip("xyz", self.safety_workspace_min, self.safety_workspace_max)
        for axis, low, high in box:
            if low >= high:
                raise ValueError(
                    f"the workspace would be empty: safety.workspace_min is {low:g} and "
                    f"safety.workspace_max {high:g} in {axis}. Set both at once, or first the one "
                    "that widens the box."
                )
        self.budget()
        if config is not None:
            self.exit_rule(config)

    def budget(self) -> Budget | None:
        """What is asked for one by one and by the preset together; None where no limit is.

        Raises ValueError for presets that are none, or do not have the one that is named.
        """
        own = {
            field.name: getattr(self, f"budget_{field.name}")
            for field in dataclasses.fields(Budget)
        }
        return combined(own, self.budget_preset, read_presets(self.budget_presets))

    def kept_budget(self) -> Budget | None:
        """The budget that steps obey: none where thresholds were set instead."""
        return None if self.exit_policy == "fixed" else self.budget()

    def exit_rule(self, config: DeerConfig) -> ExitRule:
        """Thresholds, metric and depth as the model will use them. Raises ValueError."""
        count = len(config.exit_layers)
        thresholds = (NEVER,) * count
        if self.exit_policy == "fixed":
            thresholds = self.exit_thresholds or default_thresholds(config)
        if self.exit_thresholds and len(self.exit_thresholds) != count:
            raise ValueError(
                f"exit.thresholds has {len(self.exit_thresholds)} numbers; the model needs "
                f"{count}, one per exit, after layers {list(config.exit_layers)}."
            )
        return ExitRule.of(
            config,
            config.language.layers,
            thresholds,
            None if self.exit_metric == MODELS_OWN else self.exit_metric,
            self.exit_max_layer or None,
            self._rules_cadence(config),
        )

    def cadence(self, config: DeerConfig) -> Cadence | None:
        """What is asked for; None: the model may choose. Raises ValueError."""
        most = self.exit_max_layer_between
        return Cadence.asked(
            config, self.exit_steps_per_decision or None, None if most < 0 else most
        )

    def _rules_cadence(self, config: DeerConfig) -> Cadence:
        """Of thresholds the model's own; without any, every step is as deep as it may be."""
        choice = Cadence.of(config) if self.exit_policy == "fixed" else Cadence()
        return self.cadence(config) or choice


def default_thresholds(config: DeerConfig) -> tuple[float, ...]:
    """The model's own thresholds as a parameter can hold them."""
    return tuple(min(max(threshold, NEVER), ALWAYS) for threshold in config.thresholds)


def _rows() -> Iterable[tuple[str, Row]]:
    kinds = get_type_hints(Settings)
    for field in dataclasses.fields(Settings):
        if field.metadata:
            kind = get_origin(kinds[field.name]) or kinds[field.name]
            yield field.name, Row(kind=kind, default=field.default, **field.metadata)


ROWS = {row.name: row for _, row in _rows()}
FIELDS = {row.name: field for field, row in _rows()}


def markdown() -> str:
    """docs/parameters.md: the table of all parameters."""
    lines = [
        "# Parameters of the policy node",
        "",
        "Made by `python -m deer_ros.stepping.settings > docs/parameters.md`. What is marked "
        "*live* may be set while the node runs, and takes effect between two steps. A value that "
        "is refused says why and changes nothing; one that is wrong at start leaves the node "
        "unconfigured until it is set anew, but for `exit.thresholds` and what counts only *at "
        "start*, whose defaults are used then. Only the service `set_parameters_atomically` "
        "applies several at once.",
        "",
        "| name | type | unit | default | allowed | set | meaning |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in ROWS.values():
        kind = {str: "string", float: "double", tuple: "double[]"}.get(row.kind, row.kind.__name__)
        cells = (f"`{row.name}`", kind, row.unit, _default_shown(row), row.allowed.words,
                 row.change, row.meaning)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _default_shown(row: Row) -> str:
    if row.kind is tuple:
        return ", ".join(f"{value:g}" for value in row.default) or "the model's"
    if row.kind is bool:
        return str(row.default).lower()
    return f"{row.default:g}" if row.kind is float else str(row.default)


if __name__ == "__main__":
    print(markdown(), end="")
