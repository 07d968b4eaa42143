"""DeerPolicy: pictures and an instruction in, an action out, no deeper than it needs to go.

The policy holds the recurrent state of one episode. It is used from one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from deer_ros.budget.budget import Budget, BudgetError
from deer_ros.budget.cadence import Cadence
from deer_ros.budget.calibration import Calibration
from deer_ros.budget.cost import CostModel
from deer_ros.budget.presets import find_preset
from deer_ros.budget.solution import Solution
from deer_ros.budget.timing import CostTable
from deer_ros.checkpoint import LoadedModel, load_model
from deer_ros.checkpoint.directory import CONFIG
from deer_ros.checkpoint.fingerprint import calibration_of
from deer_ros.decision import DepthChange, Explanation, NonFiniteActionError, Step, StepCost
from deer_ros.depth import depth_within, dtype_of, hold, read_layers
from deer_ros.exit_rule import ExitRule
from deer_ros.inputs import find_device, find_dtype, pictures, sensed, token_ids, usual_ids
from deer_ros.measuring import LONGEST_S, STEPS, measure
from deer_ros.model.action_head import HeadState
from deer_ros.model.config import DeerConfig
from deer_ros.model.language import Prompt
from deer_ros.observation import Observation
from deer_ros.pacing import AVERAGES, Facts, Pacing, Steady
from deer_ros.resources import find_model
from deer_ros.walk import DEADLINE, Timer, explain, walk

BY_CALIBRATION = {*AVERAGES, "max_action_error"}
BY_TIME = {"average_ms", "latency_ms"}

__all__ = ["DeerPolicy", "DepthChange", "Explanation", "NonFiniteActionError", "Step", "StepCost"]


class DeerPolicy:
    """An early-exit policy with the state of one episode.

    pacing: what says how deep the next step may go, and what steps spent since it was set.
    calibration, cost_table: what budgets are solved from; None until one is needed. clock: gives
    seconds; deadlines and measured times go by it.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._source = loaded.source
        self.model = loaded.model
        self.preprocessor = loaded.preprocessor
        self.prompts = loaded.prompts
        self.clock: Callable[[], float] = time.perf_counter
        self.pacing: Steady | Pacing = Steady(ExitRule.of(self.config, self.model.max_layer))
        self.calibration: Calibration | None = None
        self.cost_table: CostTable | None = None
        # As many layers as are wanted, memory permitting.
        self._depth = self.model.max_layer
        self._parameter = next(self.model.parameters())
        self._prompt: Prompt | None = None
        self._instruction: str | bytes | None = None
        self.reset()

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        max_layer: int | None = None,
        budget: Budget | None = None,
    ) -> DeerPolicy:
        """Load a model directory; None is the bundled model, `owner/name` one of the hub's (see
        `deer_ros.resources.find_model`).

        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`. dtype: `auto` (as stored),
        `float32`, `bfloat16`, `float16`. max_layer: read only that many layers from disk. budget:
        set at once; layers that do not fit into its memory are never read.
        Raises FileNotFoundError or ValueError with a sentence.
        """
        kind, place = find_dtype(dtype), find_device(device)
        folder = find_model(path)
        depth = max_layer
        if budget is not None and budget.memory_mib is not None and (folder / CONFIG).is_file():
            # Layers are read later, as many as fit.
            config = DeerConfig.load(folder / CONFIG)
            depth = config.exit_layers[0] if config.permitted_exits(max_layer) else None
        policy = cls(load_model(folder, depth, place, kind))
        if budget is not None:
            policy.adopt(policy.load_layers(max_layer, budget.memory_mib))
            policy.set_budget(budget)
        return policy

    @property
    def config(self) -> DeerConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def rule(self) -> ExitRule:
        """What the next step goes by. Setting one ends a budget."""
        return self.pacing.rule

    @rule.setter
    def rule(self, rule: ExitRule) -> None:
        self.pacing = Steady(rule)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Thresholds in force, one per exit of the model."""
        return self.rule.thresholds

    @property
    def max_layer(self) -> int:
        """Deepest layer that may run."""
        return self.rule.exits[-1]

    @property
    def budget(self) -> Budget | None:
        """The budget in force; None where thresholds were set instead, or nothing was."""
        return self.pacing.budget

    @property
    def solution(self) -> Solution | None:
        """What was solved for the budget, with the instruction in force."""
        return self.pacing.solution

    @property
    def state(self) -> HeadState:
        """The recurrent state that the next step starts from."""
        return self._state

    def set_thresholds(
        self,
        thresholds: Sequence[float],
        metric: str = "l2",
        max_layer: int | None = None,
        steps_per_decision: int | None = 1,
        ensemble: bool = False,
        max_layer_between: int | None = 0,
    ) -> None:
        """Take exit k when its delta is at most threshold k, from the next step on; ends a budget.

        thresholds: one per exit of the model, or per exit up to `max_layer`; the deepest permitted
        exit is taken anyway. steps_per_decision: ask the criterion every n steps, and keep the exit
        in between; max_layer_between: but no deeper than that, 0: as deep as it is; None of either:
        as the model does. ensemble: answer with the mean of the taken exit and the one before it
        (the recurrent state is the taken exit's all the same).
        Raises ValueError and changes nothing where a value is not allowed.
        """
        self.rule = ExitRule.of(
            self.config, self.model.max_layer, thresholds, metric, max_layer,
            Cadence.of(self.config, steps_per_decision, max_layer_between), ensemble,
        )  # fmt: skip

    def set_preset(self, name: str) -> None:
        """Take a published rule, of those in `deer_ros.budget.presets`, from the next step on.

        Raises ValueError and changes nothing where there is none of that name or it does not fit.
        """
        preset = find_preset(name)
        metric = self.config.metric if preset.thresholds is None else preset.metric
        self.rule = ExitRule.of(
            self.config, self.model.max_layer, preset.thresholds, metric, preset.max_layer
        )

    def set_budget(
        self,
        budget: Budget,
        max_layer: int | None = None,
        metric: str | None = None,
        steps_per_decision: int | None = None,
        max_layer_between: int | None = None,
    ) -> Solution:
        """Keep a budget from the next step on, instead of the rule or the budget before.

        The recurrent state stays; means start anew, unless the budget is the same again. max_layer,
        metric, steps_per_decision, max_layer_between: as in `set_thresholds`; metric None: the
        calibration's; with None for the last two all steps decide where no average is asked for, or
        more than the model's own cadence spends, or an action error. Reads and frees layers as
        `budget.memory_mib` permits; `pacing.unmet` says if they turn out to be too slow.
        Raises BudgetError, with what can be reached, where the budget cannot be met; ValueError or
        OSError for a calibration or layers that cannot be read. Then nothing has changed.
        """
        self.prepare_budgets(budget)
        built = self.depth_for(budget)
        cadence = Cadence.asked(self.config, steps_per_decision, max_layer_between)
        pacing = self._pacing(budget, built, max_layer, metric, cadence)
        if pacing.unmet is not None:
            raise BudgetError(pacing.unmet)
        if built != self.model.max_layer:
            hold(self.model, read_layers(self.model, self._source, built, self._depth))
        self._pace(pacing)
        self.prepare_budgets(budget)  # of layers read just now, nothing was measured yet
        return self.pacing.solution

    def take_budget(
        self,
        budget: Budget,
        max_layer: int | None = None,
        metric: str | None = None,
        steps_per_decision: int | None = None,
        max_layer_between: int | None = None,
    ) -> None:
        """As `set_budget`, in milliseconds and with what is there: nothing is read or measured.

        Steps go as deep as the layers that are there; reading and freeing them is the caller's.
        Where the budget cannot be met with the instruction in force, which `check_budget` may not
        have known, as little is spent as can be, and `pacing.unmet` says why.
        """
        cadence = Cadence.asked(self.config, steps_per_decision, max_layer_between)
        self._pace(self._pacing(budget, self.model.max_layer, max_layer, metric, cadence))

    def check_budget(
        self, budget: Budget, max_layer: int | None = None, metric: str | None = None,
        steps_per_decision: int | None = None, max_layer_between: int | None = None,
    ) -> Solution:
        """What `take_budget` would solve once all layers are there that the arguments permit.

        Changes nothing; another thread may step meanwhile. Raises BudgetError.
        """
        built = depth_within(self.model, max_layer, budget.memory_mib)
        cadence = Cadence.asked(self.config, steps_per_decision, max_layer_between)
        return self._facts(built, max_layer, metric, cadence).solve(budget)

    def prepare_budgets(self, budget: Budget | None = None) -> None:
        """Read the calibration, if the model has one, and measure layers that were not yet.

        budget: only what this one needs. Raises ValueError or OSError for a calibration that cannot
        be read or is of other weights than those that were loaded.
        """
        named = BY_CALIBRATION | BY_TIME if budget is None else budget.limits.keys()
        if self.calibration is None and self._source is not None and named & BY_CALIBRATION:
            self.calibration = calibration_of(self._source)
        measured = 0 if self.cost_table is None else self.cost_table.exit_layers[-1]
        if measured < self.model.max_layer and named & BY_TIME:
            self.measure()

    def measure(
        self, steps: int = STEPS, longest_s: float = LONGEST_S,
        on_step: Callable[[], None] = lambda: None,
    ) -> CostTable:
        """Measure how long every part takes here, for `cost_table`; see `deer_ros.measuring`.

        With the prompt in force, or one of usual length. Leaves the recurrent state.
        """
        prompt = self._prompt or self._read(self.usual_ids())
        self.cost_table = measure(self.model, self.preprocessor, prompt, steps, longest_s, on_step)
        self._adapt()
        return self.cost_table

    def depth_for(self, budget: Budget) -> int:
        """Layers that a budget of memory lets the policy hold, of those that are wanted."""
        return depth_within(self.model, self._depth, budget.memory_mib)

    def load_layers(
        self, max_layer: int | None, memory_mib: float | None = None
    ) -> DepthChange:
        """Read what the policy lacks to run to `max_layer`, rounded down to an exit; None: to all.

        memory_mib: not more than fits into that; None: what the budget in force permits. Slow, and
        changes nothing: another thread may call it while this policy steps. `adopt` makes it take
        effect. Raises ValueError or OSError with a sentence where that depth cannot be, or its
        layers' files have vanished or changed.
        """
        asked = self.config.permitted_exits(max_layer)[-1]
        if memory_mib is None and self.budget is not None:
            memory_mib = self.budget.memory_mib
        depth = depth_within(self.model, asked, memory_mib)
        return read_layers(self.model, self._source, depth, asked)

    def adopt(self, change: DepthChange) -> None:
        """Hold and run the layers of another depth from the next step on, and free those past it.

        Quick. The recurrent state stays, and so do thresholds, those of exits that were out of
        reach hold again, or the budget. Raises ValueError and changes nothing if the depth is
        another by now than when `change` was loaded.
        """
        hold(self.model, change)
        self._depth = max(change.asked, change.after)
        if isinstance(self.pacing, Steady):
            self.pacing = Steady(self.rule.at_depth(self.config, change.after))
        self._adapt()

    def reset(self) -> None:
        """Start a new episode: clear the recurrent state."""
        self._state = self.model.head.initial_state()
        self._steps = 0
        self._last_exit: int | None = None

    @torch.inference_mode()
    def step(
        self,
        observation: Observation,
        instruction: str | np.ndarray,
        exit_layer: int | None = None,
        commit: bool = True,
        started_s: float | None = None,
    ) -> Step:
        """Decide on one action and advance the recurrent state.

        instruction: text, or a 1-D int64 array of token ids. exit_layer: run to that exit without
        asking the criterion. commit: False leaves the state as it was; `commit(step)` can advance
        it later. started_s: since when, on `clock`, a deadline counts; None: from this call.
        Raises ValueError for input that the model cannot take and NonFiniteActionError for a NaN or
        infinite answer; then the state is as it was.
        """
        started_s = self.clock() if started_s is None else started_s
        prompt = self._prompt_of(instruction)
        rule, deadline = self.rule, self.pacing.deadline
        kept = rule.held(self._steps, self._last_exit)
        begun_s = self.clock()
        inputs = self._inputs(observation)
        preprocessed_s = self.clock()
        latents = self._see(*inputs)
        seen_s = self.clock()
        timer = None if deadline is None else Timer(deadline, self.clock, started_s)
        walked = walk(
            self.model, rule, prompt, latents, self._state, self.clock, exit_layer, kept, timer
        )
        pose, probability = walked.said(self.config.exit_layers, rule.ensemble)
        finished_s = self.clock()
        if deadline is not None:
            deadline.times.learn(walked.segments_ms(self.config.exit_layers, started_s))
        answer, parts = walked.answers[-1], CostModel(self.config, prompt.tokens)
        step = Step(
            action=pose,
            gripper=1.0 if probability > 0.5 else -1.0,
            gripper_probability=probability,
            exit_layer=answer.layer,
            deltas=walked.deltas,
            cost=walked.cost(parts, (begun_s, preprocessed_s, seen_s, finished_s)),
            stopped_by=walked.stopped_by,
            _state=answer.state,
        )
        if commit:
            self.commit(step)
        return step

    def commit(self, step: Step) -> None:
        """Advance the recurrent state to what follows from `step`, and count what it cost."""
        decides = self.rule.cadence.decides(self._steps)
        self.pacing.learn(step.cost, decides, step.stopped_by == DEADLINE)
        self._state = step._state
        self._steps += 1
        self._last_exit = step.exit_layer

    @torch.inference_mode()
    def explain(self, observation: Observation, instruction: str | np.ndarray) -> Explanation:
        """Every permitted exit's answer for the present state. Commits nothing."""
        latents = self._see(*self._inputs(observation))
        return explain(self.model, self.rule, self._prompt_of(instruction), latents, self._state)

    @torch.inference_mode()
    def features(
        self, observation: Observation, instruction: str | np.ndarray, layers: Sequence[int]
    ) -> torch.Tensor:
        """What the head hears after each of `layers` (from 1), whatever its state: (layers, d)."""
        latents = self._see(*self._inputs(observation))
        hidden = self.model.hidden_states(self._prompt_of(instruction), latents)
        return torch.cat([self.model.head.hear(hidden[layer - 1], layer) for layer in layers])

    def _inputs(self, observation: Observation) -> tuple[torch.Tensor, torch.Tensor | None]:
        seen = pictures(observation, self.preprocessor, self._parameter)
        return seen, sensed(observation, self.config, self._parameter)

    def _see(self, seen: torch.Tensor, felt: torch.Tensor | None) -> torch.Tensor:
        latents = self.model.see(seen)
        return latents if felt is None else self.model.with_proprioception(latents, felt)

    @torch.inference_mode()
    def expect(self, instruction: str | np.ndarray) -> None:
        """Take a coming step's instruction in force: budgets are solved for its length from now on.

        Raises ValueError for what the model cannot take.
        """
        self._prompt_of(instruction)

    def _prompt_of(self, instruction: str | np.ndarray) -> Prompt:
        """The prompt's tensors, made once per instruction; a budget is solved for its length."""
        text = isinstance(instruction, str)
        ids = None if text and instruction == self._instruction else token_ids(
            instruction, self.prompts
        )
        key = instruction if text else ids.tobytes()
        if self._prompt is None or key != self._instruction:
            self._prompt = self._read(ids)
            self._instruction = key
            self._adapt()
        return self._prompt

    def usual_ids(self) -> np.ndarray:
        """Token ids of an instruction as long as the paper's, which says nothing."""
        return usual_ids(self.config.prompt)

    def _read(self, ids: np.ndarray) -> Prompt:
        return self.model.read(torch.from_numpy(ids).to(self._parameter.device)[None])

    def _facts(
        self, built: int, max_layer: int | None, metric: str | None, cadence: Cadence | None
    ) -> Facts:
        """What a budget is solved from, with `built` layers loaded."""
        return Facts(
            self.config, dtype_of(self.model), built, max_layer, metric, cadence=cadence,
            **self._changing(built),
        )

    def _pacing(
        self, budget: Budget, built: int, max_layer: int | None, metric: str | None,
        cadence: Cadence | None,
    ) -> Pacing:
        before = self.pacing.deadline
        facts = self._facts(built, max_layer, metric, cadence)
        return Pacing(budget, facts, before and before.times)

    def _pace(self, pacing: Pacing) -> None:
        """Go by `pacing` from now on, or on as before if it asks for the same again."""
        if isinstance(self.pacing, Pacing) and self.pacing.asked == pacing.asked:
            self._adapt()
        else:
            self.pacing = pacing

    def _changing(self, built: int) -> dict[str, object]:
        """What a budget is solved from and what changes while it is in force."""
        table = self.cost_table
        return {
            "tokens": None if self._prompt is None else self._prompt.tokens,
            "table": table and table.at_depth(self.config.permitted_exits(built)),
            "calibration": self.calibration,
        }

    def _adapt(self) -> None:
        """Solve the budget in force again, as something else has changed."""
        if isinstance(self.pacing, Pacing):
            built = self.model.max_layer
            self.pacing.adapt(built=built, **self._changing(built))
