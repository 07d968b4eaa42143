"""DeerPolicy: pictures and an instruction in, an action out, no deeper than it needs to go.

The policy holds the recurrent state of one episode. It is used from one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from deer_ros.budget import criterion
from deer_ros.budget.cost import CostModel
from deer_ros.budget.presets import find_preset
from deer_ros.checkpoint import LoadedModel, load_model
from deer_ros.decision import DepthChange, Explanation, NonFiniteActionError, Step, StepCost
from deer_ros.exit_rule import ExitRule
from deer_ros.model.action_head import HeadState, pool
from deer_ros.model.config import DeerConfig
from deer_ros.model.deer import Answer
from deer_ros.model.language import Prompt
from deer_ros.observation import Observation
from deer_ros.resources import bundled_model

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class DeerPolicy:
    """An early-exit policy with the state of one episode."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._source = loaded.source
        self.model = loaded.model
        self.preprocessor = loaded.preprocessor
        self.prompts = loaded.prompts
        self.rule = ExitRule.of(self.config, self.model.max_layer)
        # Seconds; replay puts a clock of its own here.
        self.clock: Callable[[], float] = time.perf_counter
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
    ) -> DeerPolicy:
        """Load a model directory; None is the bundled model.

        device: `auto` (a GPU if there is one), `cpu`, `cuda`, `cuda:1`. dtype: `auto` (as stored),
        `float32`, `bfloat16`, `float16`. max_layer: read only that many layers from disk.
        Raises FileNotFoundError or ValueError with a sentence.
        """
        if dtype != "auto" and dtype not in DTYPES:
            raise ValueError(f"dtype is {dtype!r}; allowed are auto, {', '.join(DTYPES)}.")
        folder = bundled_model() if path is None else path
        return cls(load_model(folder, max_layer, _device(device), DTYPES.get(dtype)))

    @property
    def config(self) -> DeerConfig:
        """The model's configuration."""
        return self.model.config

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Thresholds in force, one per exit of the model."""
        return self.rule.thresholds

    @property
    def max_layer(self) -> int:
        """Deepest layer that may run."""
        return self.rule.exits[-1]

    @property
    def state(self) -> HeadState:
        """The recurrent state that the next step starts from."""
        return self._state

    def set_thresholds(
        self,
        thresholds: Sequence[float],
        metric: str = "l2",
        max_layer: int | None = None,
        steps_per_decision: int = 1,
        ensemble: bool = False,
    ) -> None:
        """Take exit k when its delta is at most threshold k, from the next step on.

        thresholds: one per exit of the model, or per exit up to `max_layer`; the deepest permitted
        exit is taken anyway. steps_per_decision: ask the criterion every n steps and keep the exit
        in between. ensemble: answer with the mean of the taken exit and the one before it (the
        recurrent state is the taken exit's all the same).
        Raises ValueError and changes nothing where a value is not allowed.
        """
        self.rule = ExitRule.of(
            self.config, self.model.max_layer, thresholds, metric, max_layer, steps_per_decision,
            ensemble,
        )

    def set_preset(self, name: str) -> None:
        """Take a published rule, of those in `deer_ros.budget.presets`, from the next step on.

        Raises ValueError and changes nothing where there is none of that name or it does not fit.
        """
        preset = find_preset(name)
        metric = self.config.metric if preset.thresholds is None else preset.metric
        self.rule = ExitRule.of(
            self.config, self.model.max_layer, preset.thresholds, metric, preset.max_layer
        )

    def load_layers(self, max_layer: int | None) -> DepthChange:
        """Read what the policy lacks to run to `max_layer`, rounded down to an exit; None: to all.

        Slow, and changes nothing: another thread may call it while this policy steps. `adopt` makes
        it take effect. Raises ValueError or OSError with a sentence where that depth cannot be, or
        its layers' files have vanished or changed.
        """
        before = self.model.max_layer
        after = self.config.permitted_exits(max_layer)[-1]
        if after <= before:
            return DepthChange(before, after, ())
        if self._source is None:
            raise ValueError(
                f"this policy has {before} layers and was not loaded from a model directory, so "
                f"there is nothing to read layers up to {after} from."
            )
        return DepthChange(before, after, self._source.layers(before + 1, after))

    def adopt(self, change: DepthChange) -> None:
        """Hold and run the layers of another depth from the next step on, and free those past it.

        Quick. The recurrent state stays, and so do the thresholds: those of exits that were out of
        reach hold again. Raises ValueError and changes nothing if the depth is another by now than
        when `change` was loaded.
        """
        built = self.model.max_layer
        if change.before != built:
            raise ValueError(
                f"layers were loaded for a policy of {change.before} layers; it has {built} now. "
                "Load them again."
            )
        rule = self.rule.at_depth(self.config, change.after)
        kept = self.model.layers[: change.after]
        self.model.layers = torch.nn.ModuleList([*kept, *change.layers]).eval()
        self.rule = rule

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
    ) -> Step:
        """Decide on one action and advance the recurrent state.

        instruction: text, or a 1-D int64 array of token ids. exit_layer: run to that exit without
        asking the criterion. commit: False leaves the state as it was; `commit(step)` can advance
        it later. Raises ValueError for input that the model cannot take and NonFiniteActionError
        for a NaN or infinite answer; then the state is as it was.
        """
        prompt = self._prompt_of(instruction)
        kept = self._last_exit if self._steps % self.rule.steps_per_decision else None
        layers = self.rule.layers(exit_layer, kept)
        started = self.clock()
        pictures = self._pictures(observation)
        preprocessed = self.clock()
        latents = self.model.see(pictures)
        seen = self.clock()
        answers, deltas = self._run(prompt, latents, layers)
        answer = answers[-1]
        pose, probability = self._said(answers)
        finished = self.clock()

        cost = CostModel(self.config, prompt.tokens)
        head_s = answer.head_s
        step = Step(
            action=pose,
            gripper=1.0 if probability > 0.5 else -1.0,
            gripper_probability=probability,
            exit_layer=answer.layer,
            deltas=deltas,
            cost=StepCost(
                vision_gflops=cost.vision_gflops,
                language_gflops=cost.language_gflops(answer.layer),
                head_gflops=cost.head_gflops(len(answers)),
                preprocessing_ms=1e3 * (preprocessed - started),
                vision_ms=1e3 * (seen - preprocessed),
                language_ms=1e3 * (finished - seen - head_s),
                head_ms=1e3 * head_s,
            ),
            _state=answer.state,
        )
        if commit:
            self.commit(step)
        return step

    def commit(self, step: Step) -> None:
        """Advance the recurrent state to what follows from `step`."""
        self._state = step._state
        self._steps += 1
        self._last_exit = step.exit_layer

    @torch.inference_mode()
    def explain(self, observation: Observation, instruction: str | np.ndarray) -> Explanation:
        """Every permitted exit's answer for the present state. Commits nothing."""
        exits = self.rule.exits
        reference = (exits[0] - 1,) if exits[0] > 1 else ()
        latents = self.model.see(self._pictures(observation))
        prompt = self._prompt_of(instruction)
        answers = list(self.model.answers(prompt, latents, self._state, reference + exits))
        poses = np.stack([_numpy(a.pose[0]) for a in answers])
        grippers = np.array([float(a.gripper_probability) for a in answers], np.float32)
        deltas = criterion.delta(poses[1:], poses[:-1], self.rule.metric)
        skip = len(reference)
        return Explanation(
            layers=exits,
            actions=poses[skip:],
            gripper_probabilities=grippers[skip:],
            deltas=deltas if skip else np.concatenate([[np.float32(np.nan)], deltas]),
            states=tuple(a.state for a in answers[skip:]),
            reference_action=poses[0] if skip else None,
            reference_gripper_probability=float(grippers[0]) if skip else None,
        )

    @torch.inference_mode()
    def features(
        self, observation: Observation, instruction: str | np.ndarray, layers: Sequence[int]
    ) -> torch.Tensor:
        """What the head hears after each of `layers` (from 1), whatever its state: (layers, d)."""
        latents = self.model.see(self._pictures(observation))
        hidden = self.model.hidden_states(self._prompt_of(instruction), latents)
        return torch.cat([pool(hidden[layer - 1]) for layer in layers])

    def _run(
        self, prompt: Prompt, latents: torch.Tensor, layers: tuple[int, ...]
    ) -> tuple[list[Answer], np.ndarray]:
        """Answer after answer until the rule is content: all of them, and the deltas."""
        exits = self.config.exit_layers
        deltas = np.full(len(exits), np.nan, np.float32)
        poses: dict[int, np.ndarray] = {}
        answers: list[Answer] = []
        for answer in self.model.answers(prompt, latents, self._state, layers):
            answers.append(answer)
            pose = poses[answer.layer] = _numpy(answer.pose[0])
            if not (np.isfinite(pose).all() and bool(torch.isfinite(answer.gripper_probability))):
                raise NonFiniteActionError(
                    f"the model's answer after layer {answer.layer} is not finite: pose "
                    f"{pose.tolist()}, gripper {float(answer.gripper_probability)}."
                )
            if answer.layer not in exits:
                continue
            index = exits.index(answer.layer)
            reference = poses.get(exits[index - 1] if index else answer.layer - 1)
            if reference is not None:
                deltas[index] = criterion.delta(pose, reference, self.rule.metric)
            if criterion.agrees(deltas[index], self.rule.thresholds[index]):
                break
        return answers, deltas

    def _said(self, answers: list[Answer]) -> tuple[np.ndarray, float]:
        """Pose and gripper probability of a step's last answer, or of an ensemble of two."""
        exits = [answer for answer in answers if answer.layer in self.config.exit_layers]
        chosen = exits[-2:] if self.rule.ensemble else exits[-1:]
        pose = np.mean([_numpy(answer.pose[0]) for answer in chosen], axis=0)
        return pose, float(np.mean([float(answer.gripper_probability) for answer in chosen]))

    def _prompt_of(self, instruction: str | np.ndarray) -> Prompt:
        """The prompt's tensors, made once per instruction."""
        if isinstance(instruction, str):
            key: str | bytes = instruction
        else:
            instruction = self._checked_ids(instruction)
            key = instruction.tobytes()
        if self._prompt is None or key != self._instruction:
            ids = self.prompts.encode(instruction) if isinstance(instruction, str) else instruction
            device = self._parameter.device
            self._prompt = self.model.read(torch.from_numpy(ids).to(device)[None])
            self._instruction = key
        return self._prompt

    def _checked_ids(self, ids: np.ndarray) -> np.ndarray:
        if getattr(ids, "dtype", None) != np.int64 or ids.ndim != 1 or ids.size == 0:
            raise ValueError(
                f"the instruction is {ids!r}; it must be text or a 1-D int64 array of token ids."
            )
        longest = self.config.prompt.max_tokens
        if ids.size > longest:
            raise ValueError(
                f"the instruction has {ids.size} token ids; this model takes {longest}."
            )
        return ids

    def _pictures(self, observation: Observation) -> torch.Tensor:
        """Both pictures as the tower takes them: (1, 2, 3, S, S)."""
        pictures = np.stack(
            [self.preprocessor(observation.static), self.preprocessor(observation.gripper)]
        )
        return torch.from_numpy(pictures)[None].to(self._parameter)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}; allowed are auto, cpu, cuda, cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}; allowed are auto, cpu, cuda, cuda:N.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device is {name!r}, but torch finds no GPU here; use cpu or auto.")
    return device


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.float().cpu().numpy()
