"""Measures how long the parts of a loaded model take on this machine."""

from __future__ import annotations

import os
import platform
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from deer_ros.budget.timing import CostTable, Milliseconds
from deer_ros.inputs import pictures
from deer_ros.model.deer import DeerModel
from deer_ros.model.language import Prompt
from deer_ros.model.preprocessing import Preprocessor
from deer_ros.observation import Observation

STEPS = 100
FEWEST_STEPS = 5
LONGEST_S = 10.0
WARM_UP_STEPS = 3
PICTURE_SIZE = (200, 200)


@torch.inference_mode()
def measure(
    model: DeerModel,
    preprocessor: Preprocessor,
    prompt: Prompt,
    steps: int = STEPS,
    longest_s: float = LONGEST_S,
    on_step: Callable[[], None] = lambda: None,
) -> CostTable:
    """Run `steps` steps to the deepest layer, and as many part by part, in turns.

    Pictures are of noise, 200x200. It ends after `longest_s`, with fewer steps (but five, if so
    many were asked for) where the model is large. on_step: called after each of them.
    Raises ValueError for less than one step.
    """
    if steps < 1:
        raise ValueError(f"steps is {steps}; it must be at least 1.")
    random = np.random.default_rng(0)
    segments: list[list[float]] = []
    parts: dict[str, list[float]] = defaultdict(list)
    until_s = time.perf_counter() + longest_s
    for number in range(-WARM_UP_STEPS, steps):
        if number >= FEWEST_STEPS and time.perf_counter() > until_s:
            break
        observation = Observation(*random.integers(0, 256, (2, *PICTURE_SIZE, 3), np.uint8))
        whole = _whole_step(model, preprocessor, prompt, observation)
        alone = _part_by_part(model, preprocessor, prompt, observation)
        if number >= 0:
            segments.append(whole)
            for part, ms in alone.items():
                parts[part].append(ms)
            on_step()
    of = {part: Milliseconds.of(samples) for part, samples in parts.items()}
    samples_ms = np.array(segments)
    parameter = next(model.parameters())
    return CostTable(
        machine=_machine(),
        device=_device(parameter.device),
        dtype=str(parameter.dtype).removeprefix("torch."),
        threads=torch.get_num_threads(),
        prompt_tokens=prompt.tokens,
        steps=len(segments),
        exit_layers=_exits(model),
        preprocessing=of["preprocessing"],
        vision=of["vision"],
        resampler=of["resampler"],
        recurrent=of["recurrent"],
        head=of["head"],
        layers=tuple(of[f"layer {number}"] for number in range(1, model.max_layer + 1)),
        segments=tuple(map(Milliseconds.of, samples_ms.T)),
        exits=tuple(map(Milliseconds.of, samples_ms.cumsum(axis=1).T)),
    )


def take_threads() -> None:
    """Let torch have the threads that the node gives it: OMP_NUM_THREADS, or all cores but one."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


def _exits(model: DeerModel) -> tuple[int, ...]:
    return model.config.permitted_exits(model.max_layer)


def _whole_step(
    model: DeerModel, preprocessor: Preprocessor, prompt: Prompt, observation: Observation
) -> list[float]:
    """Milliseconds to the first exit's answer, from it to the next one's, and so on."""
    exits = _exits(model)
    reference = model.config.reference_layer(model.config.metric)
    asked = exits if reference is None else (reference, *exits)
    state = model.head.initial_state()
    marks_s = [time.perf_counter()]
    latents = _with_zeros(
        model, model.see(pictures(observation, preprocessor, next(model.parameters())))
    )
    for answer in model.answers(prompt, latents, state, asked):
        answer.pose.float().cpu()  # as a step reads it, which waits for a GPU
        if answer.layer in exits:
            marks_s.append(time.perf_counter())
    return [1e3 * (b - a) for a, b in zip(marks_s, marks_s[1:])]


def _part_by_part(
    model: DeerModel, preprocessor: Preprocessor, prompt: Prompt, observation: Observation
) -> dict[str, float]:
    """Milliseconds of every part by itself; of one answer of the head."""
    like, taken = next(model.parameters()), {}

    def timed(part: str, run: Callable[[], object]) -> object:
        started_s = time.perf_counter()
        result = run()
        if like.device.type == "cuda":
            torch.cuda.synchronize(like.device)
        taken[part] = 1e3 * (time.perf_counter() - started_s)
        return result

    state = model.head.initial_state()
    seen = timed("preprocessing", lambda: pictures(observation, preprocessor, like))
    tokens = timed("vision", lambda: model.tower(seen))
    latents = timed("resampler", lambda: _with_zeros(model, model.resample(tokens)))
    carried = timed("recurrent", lambda: model.head.carry(state))
    hidden = prompt.embedding
    for number, layer in enumerate(model.layers, start=1):
        hidden = timed(f"layer {number}", lambda x=hidden, run=layer: run(x, latents, prompt))
    depth = len(model.layers)
    head = model.head
    timed("head", lambda: head.step(
        head.hear(hidden, depth), state, carried, depth
    ).pose.float().cpu())
    return taken


def _with_zeros(model: DeerModel, latents: torch.Tensor) -> torch.Tensor:
    """With the robot's own state as another latent, of zeros, where the model reads it."""
    sensed = model.config.proprioception
    if sensed is None:
        return latents
    return model.with_proprioception(latents, latents.new_zeros(1, sensed.size))


def _machine() -> str:
    """The processor's name and how many of its cores this process may use."""
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        found = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        name = found[0] if found else name
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def _device(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
