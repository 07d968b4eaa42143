"""Closed-loop runs: the same actions, exits and recurrent states as the authors' implementation."""

from __future__ import annotations

from collections.abc import Iterator

import golden_data as golden
import numpy as np
import pytest
import torch

from deer_ros import DeerPolicy, Observation

RUNS = golden.text("rollout")["runs"]
EXITS = len(golden.text("config")["exit_layers"])


@pytest.fixture(scope="module")
def policy() -> DeerPolicy:
    return golden.golden_policy()


def steps(run: dict) -> Iterator[tuple[int, bool, np.ndarray]]:
    """Every step of a run: its index, whether an episode starts, the prompt's ids."""
    for episode in run["episodes"]:
        ids = golden.token_ids(episode["instruction"])
        for step in range(episode["first_step"], episode["end_step"]):
            yield step, step == episode["first_step"], ids


def observation(step: int) -> Observation:
    pictures = golden.arrays("inputs")
    return Observation(pictures["static_u8"][step], pictures["gripper_u8"][step])


def set_rule(policy: DeerPolicy, run: dict) -> int | None:
    """Put the run's thresholds in force; the exit layer of a run that asks none, else None."""
    metric = run["threshold_type"].lower()
    fixed = run["fixed_exit_layer"]
    thresholds = run["thresholds"] or [1e8] * EXITS
    policy.set_thresholds(thresholds, metric, run["max_layer"], run["steps_per_stage"])
    return None if fixed is None else fixed + 1


def state_arrays(state) -> tuple[np.ndarray, np.ndarray]:
    return state.hidden[:, 0].numpy(), state.cell[:, 0].numpy()


@pytest.mark.parametrize("name", RUNS)
def test_a_closed_loop_run_takes_the_same_exits_and_actions(policy, name):
    run, arrays = RUNS[name], golden.arrays("rollout")
    fixed = set_rule(policy, run)
    for step, first, ids in steps(run):
        if first:
            policy.reset()
        answer = policy.step(observation(step), ids, exit_layer=fixed)
        where = f"{name}, step {step}"
        assert answer.exit_layer - 1 == arrays[f"{name}.exit_layer"][step], where
        assert answer.gripper == float(arrays[f"{name}.action"][step, 6]), where
        assert_action(answer, arrays, name, step)
        hidden, cell = state_arrays(policy.state)
        golden.assert_close(hidden, arrays[f"{name}.h_out"][step], f"h_out of {where}")
        golden.assert_close(cell, arrays[f"{name}.c_out"][step], f"c_out of {where}")


def assert_action(answer, arrays, name, step):
    golden.assert_close(answer.action, arrays[f"{name}.pose"][step], f"pose, {name} {step}")
    expected = arrays[f"{name}.gripper_prob"][step]
    golden.assert_close([answer.gripper_probability], expected, f"gripper, {name} {step}")


@pytest.mark.parametrize("name", [n for n in RUNS if f"{n}.delta" in golden.arrays("rollout")])
def test_every_exit_differs_from_the_one_before_as_in_the_original(policy, name):
    run, arrays = RUNS[name], golden.arrays("rollout")
    metric = run["threshold_type"].lower()
    for step, first, ids in steps(run):
        if first:
            policy.reset()
        policy.set_thresholds([1e8] * EXITS, metric)
        explanation = policy.explain(observation(step), ids)
        expected = arrays[f"{name}.delta"][step]
        golden.assert_close(explanation.deltas, expected, f"deltas of {name}, step {step}")
        set_rule(policy, run)
        deltas = policy.step(observation(step), ids).deltas
        asked = ~np.isnan(deltas)
        golden.assert_close(deltas[asked], expected[asked], f"deltas met in {name}, step {step}")


@pytest.mark.parametrize("name", ["dynamic", "two_episodes"])
def test_every_exit_answers_as_in_the_original(policy, name):
    run, arrays = RUNS[name], golden.arrays("rollout")
    set_rule(policy, run)
    for step, first, ids in steps(run):
        if first:
            policy.reset()
        hidden, cell = state_arrays(policy.state)
        golden.assert_close(hidden, arrays[f"{name}.h_in"][step], "h_in")
        golden.assert_close(cell, arrays[f"{name}.c_in"][step], "c_in")
        told = policy.explain(observation(step), ids)
        golden.assert_close(told.actions, arrays[f"{name}.exit_pose"][step], "exit_pose")
        grippers = told.gripper_probabilities[:, None]
        golden.assert_close(grippers, arrays[f"{name}.exit_gripper_prob"][step], "gripper")
        golden.assert_close(told.reference_action, arrays[f"{name}.pseudo_pose"][step], "pseudo")
        pseudo = [told.reference_gripper_probability]
        golden.assert_close(pseudo, arrays[f"{name}.pseudo_gripper_prob"][step], "pseudo")
        states = [state_arrays(state) for state in told.states]
        golden.assert_close([h for h, _ in states], arrays[f"{name}.exit_h"][step], "exit_h")
        golden.assert_close([c for _, c in states], arrays[f"{name}.exit_c"][step], "exit_c")
        policy.step(observation(step), ids)


@pytest.mark.parametrize("name", ["dynamic", "two_episodes"])
@torch.inference_mode()
def test_pictures_tokens_latents_and_hidden_states_are_those_of_the_original(policy, name):
    run, arrays = RUNS[name], golden.arrays("rollout")
    model, prepare, pictures = policy.model, policy.preprocessor, golden.arrays("inputs")
    for episode, steps_of in enumerate(run["episodes"]):
        prompt = model.read(torch.from_numpy(golden.token_ids(steps_of["instruction"]))[None])
        per_episode = arrays.get(f"{name}.hidden_ep{episode}", arrays.get(f"{name}.hidden"))
        for step in range(steps_of["first_step"], steps_of["end_step"]):
            cameras = [prepare(pictures[f"{c}_u8"][step]) for c in ("static", "gripper")]
            tokens = model.tower(torch.from_numpy(np.stack(cameras))[None])
            latents = model.resample(tokens)
            hidden = torch.stack(model.hidden_states(prompt, latents), dim=1)
            for index, camera in enumerate(("static", "gripper")):
                golden.assert_close(cameras[index], arrays[f"{name}.{camera}_tensor"][step], camera)
                golden.assert_close(tokens[0, index], arrays[f"{name}.vit_{camera}"][step], camera)
            golden.assert_close(latents[0], arrays[f"{name}.vis_x"][step], "vis_x")
            row = step - steps_of["first_step"] if len(run["episodes"]) > 1 else step
            golden.assert_close(hidden[0], per_episode[row], f"hidden of {name}, step {step}")
