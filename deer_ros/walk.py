"""One step's way through the layers: exit after exit is asked, until one answer is taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from deer_ros.budget import criterion
from deer_ros.budget.cost import CostModel
from deer_ros.budget.deadline import Deadline
from deer_ros.decision import Explanation, NonFiniteActionError, StepCost
from deer_ros.exit_rule import ExitRule
from deer_ros.model.action_head import HeadState
from deer_ros.model.config import LEARNED
from deer_ros.model.deer import Answer, DeerModel
from deer_ros.model.language import Prompt

CRITERION, DEEPEST, FIXED, DEADLINE = "criterion", "deepest", "fixed", "deadline"


@dataclass(frozen=True)
class Walk:
    """What was asked. answers: in order of depth, the last one is taken. poses: float32 (6,) each.

    deltas: float32 (exits,), NaN where not evaluated. answered_s: when each answer was there.
    """

    answers: tuple[Answer, ...]
    poses: tuple[np.ndarray, ...]
    deltas: np.ndarray
    answered_s: tuple[float, ...]
    stopped_by: str

    def said(self, exits: tuple[int, ...], ensemble: bool) -> tuple[np.ndarray, float]:
        """Pose and gripper probability: the taken answer's, or the mean of it and the exit before.

        exits: of the model.
        """
        asked = [n for n, answer in enumerate(self.answers) if answer.layer in exits]
        chosen = asked[-2:] if ensemble else asked[-1:]
        pose = np.mean([self.poses[n] for n in chosen], axis=0)
        grippers = [float(self.answers[n].gripper_probability) for n in chosen]
        return pose, float(np.mean(grippers))

    def cost(self, parts: CostModel, marks_s: tuple[float, float, float, float]) -> StepCost:
        """What the step cost. marks_s: when it began, had its pictures, had seen them, was done."""
        preprocessing_ms, vision_ms, rest_ms = (
            1e3 * (end - begin) for begin, end in zip(marks_s, marks_s[1:])
        )
        taken = self.answers[-1]
        head_ms = 1e3 * taken.head_s
        return StepCost(
            vision_gflops=parts.vision_gflops,
            language_gflops=parts.language_gflops(taken.layer),
            head_gflops=parts.head_gflops(len(self.answers)),
            preprocessing_ms=preprocessing_ms,
            vision_ms=vision_ms,
            language_ms=rest_ms - head_ms,
            head_ms=head_ms,
        )

    def segments_ms(self, exits: tuple[int, ...], started_s: float) -> list[float]:
        """How long the way to the first exit took, from it to the second one, and so on.

        Of a walk that asked every exit on its way.
        """
        reached_s = [s for s, a in zip(self.answered_s, self.answers) if a.layer in exits]
        return [1e3 * (b - a) for a, b in zip([started_s, *reached_s], reached_s)]


@dataclass(frozen=True)
class Timer:
    """A deadline and the step that it is for. started_s: on `clock`."""

    deadline: Deadline
    clock: Callable[[], float]
    started_s: float

    def permits(self, segment: int) -> bool:
        """Whether there is time for the layers before exit number `segment`."""
        return self.deadline.permits(segment, 1e3 * (self.clock() - self.started_s))


def walk(
    model: DeerModel,
    rule: ExitRule,
    prompt: Prompt,
    latents: torch.Tensor,
    state: HeadState,
    clock: Callable[[], float],
    exit_layer: int | None = None,
    kept: int | None = None,
    timer: Timer | None = None,
) -> Walk:
    """Ask as `rule` says, and take the first answer that it is content with.

    exit_layer, kept: as `ExitRule.layers` takes them. timer: with it every permitted exit on the
    way is asked, so that there is an answer from the last one when time is up.
    Raises NonFiniteActionError for an answer, or a gate's guess, of NaN or infinity.
    """
    exits = model.config.exit_layers
    layers = rule.layers(exit_layer, kept)
    target = layers[-1]
    fixed = exit_layer is not None or kept in rule.exits
    if timer is not None:
        on_the_way = {layer for layer in rule.exits if layer <= target}
        layers = _in_time(sorted(on_the_way.union(layers)), rule.exits, timer)
    answers: list[Answer] = []
    poses: list[np.ndarray] = []
    answered_s: list[float] = []
    deltas = np.full(len(exits), np.nan, np.float32)
    stopped_by = None
    for answer in model.answers(prompt, latents, state, layers):
        pose = _checked_pose(answer)
        before = {asked.layer: asked_pose for asked, asked_pose in zip(answers, poses)}
        answers.append(answer)
        poses.append(pose)
        answered_s.append(clock())
        if fixed or answer.layer not in exits:
            continue
        index = exits.index(answer.layer)
        reference = before.get(exits[index - 1] if index else answer.layer - 1)
        deltas[index] = _value(answer, pose, reference, rule.metric)
        if answer.layer != target and criterion.agrees(deltas[index], rule.thresholds[index]):
            stopped_by = CRITERION
            break
    if stopped_by is None:
        ran_out = answers[-1].layer != target
        stopped_by = DEADLINE if ran_out else FIXED if fixed else DEEPEST
    return Walk(tuple(answers), tuple(poses), deltas, tuple(answered_s), stopped_by)


def _in_time(layers: Sequence[int], exits: tuple[int, ...], timer: Timer) -> Iterator[int]:
    """The layers, as long as there is time for the next one. The first exit is always among them.

    The model asks for the next layer only when it has answered at the one before.
    """
    for layer in layers:
        if layer > exits[0] and not timer.permits(exits.index(layer)):
            return
        yield layer


def explain(
    model: DeerModel, rule: ExitRule, prompt: Prompt, latents: torch.Tensor, state: HeadState
) -> Explanation:
    """Every permitted exit's answer from `state`."""
    exits = rule.exits
    before = model.config.reference_layer(rule.metric)
    skip = int(before is not None)
    answers = list(model.answers(prompt, latents, state, (before,) * skip + exits))
    poses = np.stack([_pose(answer) for answer in answers])
    grippers = np.array([float(a.gripper_probability) for a in answers], np.float32)
    expected = None
    if answers[0].expected_loss is not None:
        expected = np.array([[float(a.expected_loss) for a in answers[skip:]]], np.float32)
    deltas = criterion.values(
        poses[None, skip:], poses[:1] if skip else None, expected, rule.metric
    )[0]
    return Explanation(
        layers=exits,
        actions=poses[skip:],
        gripper_probabilities=grippers[skip:],
        deltas=deltas,
        states=tuple(a.state for a in answers[skip:]),
        reference_action=poses[0] if skip else None,
        reference_gripper_probability=float(grippers[0]) if skip else None,
    )


def _value(
    answer: Answer, pose: np.ndarray, reference: np.ndarray | None, metric: str
) -> float:
    """The criterion's value at an exit; NaN where there is nothing to compare with."""
    if metric == LEARNED:
        return _checked_guess(answer)
    return np.nan if reference is None else criterion.delta(pose, reference, metric)


def _pose(answer: Answer) -> np.ndarray:
    return answer.pose[0].float().cpu().numpy()


def _checked_guess(answer: Answer) -> float:
    guess = float(answer.expected_loss)
    if not np.isfinite(guess):
        raise NonFiniteActionError(
            f"the gate's guess after layer {answer.layer} is {guess}; without one that is finite "
            "there is no telling whether that exit may be taken."
        )
    return guess


def _checked_pose(answer: Answer) -> np.ndarray:
    pose = _pose(answer)
    if not (np.isfinite(pose).all() and bool(torch.isfinite(answer.gripper_probability))):
        raise NonFiniteActionError(
            f"the model's answer after layer {answer.layer} is not finite: pose "
            f"{pose.tolist()}, gripper {float(answer.gripper_probability)}."
        )
    return pose
