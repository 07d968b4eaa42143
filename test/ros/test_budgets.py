"""Budgets of a running policy node, over DDS."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import pytest
from calibrated_model import write_calibrated_model
from policy_client import PATIENT, running_policy
from tiny_model import INSTRUCTIONS, tiny_config

from deer_ros.budget.cost import CostModel
from deer_ros.budget.memory import weights_mib
from deer_ros.checkpoint.directory import inspect_model
from deer_ros.control.safety import State
from deer_ros.model.config import ExitConfig
from deer_ros.model.prompt import PromptEncoder
from deer_ros.stepping.budgets import LIMITS

pytestmark = pytest.mark.clock

SHORT, LONG = INSTRUCTIONS[0], INSTRUCTIONS[2]
NO_BUDGET = {f"budget__{name}": 0.0 for name in LIMITS} | {
    "budget__preset": "", "budget__scope": "llm", "exit__policy": "budget",
    "exit__steps_per_decision": 0, "exit__max_layer_between": -1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_calibrated_model(tmp_path_factory.mktemp("calibrated") / "model")


@pytest.fixture(scope="module")
def config(folder):
    return inspect_model(folder)[0]


@pytest.fixture(scope="module")
def costs(folder, config):
    """GFLOPs of each exit, by instruction and scope."""
    encoder = PromptEncoder.load(folder, config.prompt)

    def of(instruction: str = SHORT, scope: str = "llm"):
        return CostModel(config, len(encoder.encode(instruction))).exit_gflops(scope)

    return of


@pytest.fixture(scope="module")
def started(folder, costs, tmp_path_factory):
    low, _, high = costs()
    presets = {"shallow": {"peak_gflops": 1.01 * low},
               "low_power": {"average_gflops": 0.8 * low + 0.2 * high, "tracking": False},
               "whole": {"scope": "step", "average_gflops": float(costs(scope="step")[1])}}
    with running_policy(tmp_path_factory.mktemp("policy"), model=str(folder),
                        allow_simulation_model=True, episode__max_duration=3600.0,
                        safety__frozen_image_timeout=0.0,
                        budget__presets=json.dumps(presets), **PATIENT) as client:
        client.wait_until(lambda: client.diagnostics and client.state() == "active")
        yield client


@pytest.fixture
def node(started):
    """Makes steps, without any budget."""
    result = started.set_all(**NO_BUDGET)
    assert result.successful, result.reason
    started.tell(SHORT)
    started.wait_for_status(lambda s: s.state == State.RUNNING and s.exit_layer == 6)
    return started


def after(node, **values):
    """The first status of a step with these parameters, which are set at once."""
    before = node.statuses[-1].settings_version
    status = node.wait_for_status(
        lambda s: s.settings_version > before and s.state == State.RUNNING,
        lambda: node.set_all(**values))
    assert status.settings_version == before + 1, "all at once are one change"
    return status


def set_one(node, **values) -> None:
    before = node.statuses[-1].settings_version
    node.wait_for_status(lambda s: s.settings_version > before, lambda: node.set(**values))


def test_a_budget_is_obeyed_by_the_next_step_of_the_same_episode(node, costs):
    low, middle, high = costs()
    before = node.statuses[-1]
    assert before.budget_average_gflops == 0 and before.budget_binding == ""
    assert before.budget_scope == "" and before.stopped_by == "deepest"
    first = len(node.statuses)
    status = after(node, budget__peak_gflops=float(middle))
    assert status.budget_peak_gflops == middle and status.exit_layer == status.max_layer == 4
    assert (status.budget_binding, status.budget_unmet) == ("peak_gflops", "")
    assert (status.budget_scope, status.budget_solver) == ("llm", "optimal")
    assert status.averaged_steps == 1, "averages start anew with a budget"

    status = after(node, budget__average_gflops=float(0.9 * low + 0.1 * high))
    node.wait_for_status(lambda s: s.averaged_steps >= 60)
    last = node.statuses[-1]
    assert last.budget_binding == "average_gflops", "the tighter of the two"
    assert last.average_llm_gflops == pytest.approx(last.budget_average_gflops, rel=0.25)
    assert after(node, image__max_skew=0.06).averaged_steps > 60, "not by any other change"
    assert after(node, budget__average_gflops=float(high)).budget_binding == "peak_gflops"

    told = node.statuses[first:]
    assert {s.episode for s in told} == {before.episode}
    numbers = [s.step for s in told]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no step was dropped"
    assert sorted(s.settings_version for s in told) == [s.settings_version for s in told]


def test_steps_between_decisions_are_no_deeper_than_the_parameter_says(node, costs):
    low, _, high = costs()
    asked = float(0.7 * low + 0.3 * high)
    after(node, exit__steps_per_decision=2, exit__max_layer_between=3,
          budget__average_gflops=asked)
    last = node.wait_for_status(lambda s: s.averaged_steps >= 60)
    assert last.average_llm_gflops == pytest.approx(asked, rel=0.25)
    layers = [s.exit_layer for s in node.statuses[-50:]]
    asked_nothing = [s.stopped_by == "fixed" for s in node.statuses[-50:]]
    assert asked_nothing in ([True, False] * 25, [False, True] * 25)
    assert {layer for layer, between in zip(layers, asked_nothing) if between} == {2}
    result = node.set(exit__max_layer_between=1)
    assert not result.successful and "max_layer_between is 1; the first exit" in result.reason


@pytest.mark.parametrize("values, words", [
    ({"budget__average_gflops": 1e-7}, "budget.average_gflops is 1e-07; a step of this model"),
    ({"budget__peak_gflops": 1e-7}, "Raise budget.peak_gflops to at least"),
    ({"budget__memory_mib": 1e-3}, "budget.memory_mib is 0.001; this model needs"),
    ({"budget__latency_ms": 1e-3}, "budget.latency_ms is 0.001; this model needs"),
    ({"budget__average_ms": 1e-3}, "budget.average_ms is 0.001; a step of this model costs"),
    ({"budget__max_action_error": 1e-9}, "raise one of them"),
    ({"budget__average_gflops": math.nan}, "budget.average_gflops is nan; allowed: 0 to"),
    ({"budget__latency_ms": [8.0, 9.0]}, "budget.latency_ms is [8.0, 9.0]"),
    ({"budget__preset": "turbo"}, "shallow, low_power, whole"),
    ({"exit__metric": "cosine"}, "frontier is for the metric l2"),
])
def test_what_cannot_be_met_is_refused_with_a_sentence_and_the_old_budget_stays(
    node, costs, values, words
):
    asked = float(costs()[1])
    status = after(node, budget__average_gflops=asked)
    result = node.set_all(dry_run=True, **values)
    assert not result.successful and words in result.reason, result.reason
    assert node.get("budget.average_gflops") == asked and node.get("dry_run") is False
    last = node.wait_for_status(lambda s: s.step > status.step + 1)
    assert last.settings_version == status.settings_version
    assert last.budget_average_gflops == asked and last.budget_unmet == ""


def test_single_sets_work_in_any_order_where_each_whole_can_be_met(node, costs):
    llm, step = costs(), costs(scope="step")
    for first, second in (
        ({"budget__scope": "step"}, {"budget__average_gflops": float(step[1])}),
        ({"budget__average_gflops": float(step[1])}, {"budget__scope": "step"}),
        ({"budget__peak_gflops": float(llm[0])}, {"budget__average_gflops": float(llm[2])}),
        ({"budget__average_gflops": float(llm[2])}, {"budget__peak_gflops": float(llm[0])}),
        ({"exit__max_layer": 2}, {"budget__average_gflops": float(llm[0])}),
        ({"budget__average_gflops": float(llm[0])}, {"exit__max_layer": 2}),
    ):
        after(node, exit__max_layer=0, **NO_BUDGET)
        for change in (first, second):
            set_one(node, **change)
    after(node, exit__max_layer=0, **NO_BUDGET)
    after(node, budget__scope="step", budget__average_gflops=float(step[1]))
    result = node.set(budget__average_gflops=float(llm[1]))
    assert not result.successful and "scope step" in result.reason
    assert "deer set" in result.reason, "what only works together is named"
    result = node.set_all(budget__scope="llm", budget__average_gflops=float(llm[1]))
    assert result.successful, result.reason


def test_whole_numbers_are_taken(node):
    result = node.set(budget__average_gflops=8)
    assert result.successful, result.reason
    status = node.wait_for_status(lambda s: s.budget_average_gflops == 8.0)
    assert status.exit_layer == 6 and status.budget_binding == "none", "more than can be spent"


def test_a_preset_holds_beside_what_is_set_one_by_one(node, costs):
    status = after(node, budget__preset="shallow")
    assert (status.exit_layer, status.budget_binding) == (2, "peak_gflops")
    status = after(node, budget__preset="low_power", budget__peak_gflops=float(costs()[1]))
    assert not status.budget_tracking and status.max_layer == 4
    asked = status.budget_average_gflops
    assert asked == pytest.approx(0.8 * costs()[0] + 0.2 * costs()[2])
    assert after(node, budget__average_gflops=2 * asked).budget_average_gflops == asked
    status = after(node, budget__average_gflops=0.0, budget__peak_gflops=0.0,
                   budget__preset="whole")
    assert status.budget_scope == "step"
    assert after(node, budget__preset="").budget_average_gflops == 0


def test_memory_frees_layers_and_more_memory_reads_them_again(node, config):
    episode = node.statuses[-1].episode
    for layers in (2, 4):
        limit = weights_mib(config, layers, "float32")
        status = after(node, budget__memory_mib=limit)
        status = node.wait_for_status(lambda s, n=layers: s.max_layer == s.exit_layer == n)
        assert (status.budget_binding, status.budget_memory_mib) == ("memory_mib", limit)
    # The layers were let go: without the limit they have to be read first.
    after(node, budget__memory_mib=0.0)
    node.wait_for_status(lambda s: s.max_layer == s.exit_layer == 6)
    assert node.statuses[-1].episode == episode and "depth stays" not in node.said()


def test_a_step_that_is_out_of_time_answers_from_the_exit_that_it_has(node):
    status = after(node, budget__latency_ms=450.0)
    assert (status.stopped_by, status.exit_layer) == ("deepest", 6)
    node.tell("think long")
    status = node.wait_for_status(lambda s: s.instruction == "think long" and s.exit_layer > 0)
    assert (status.stopped_by, status.exit_layer) == ("deadline", 2)
    assert status.budget_latency_ms == 450.0


def test_fixed_thresholds_keep_no_budget_and_the_node_says_so(node, costs):
    status = after(node, exit__policy="fixed", exit__thresholds=[-1.0, -1.0, 1.0],
                   budget__peak_gflops=float(costs()[0]))
    assert status.exit_layer == 6 and status.budget_peak_gflops == 0
    assert "budget.peak_gflops are without effect" in node.said()
    status = after(node, exit__policy="budget")
    assert status.exit_layer == 2 and status.budget_binding == "peak_gflops"


def test_an_instruction_that_breaks_a_budget_blocks_nothing_else(node, costs):
    asked = float(1.01 * costs(SHORT)[0])
    assert asked < costs(LONG)[0]
    assert after(node, budget__average_gflops=asked).budget_unmet == ""
    node.tell(LONG)
    status = node.wait_for_status(lambda s: s.instruction == LONG and s.state == State.RUNNING)
    assert status.exit_layer == 2, "as little as can be is spent"
    assert "budget.average_gflops is" in status.budget_unmet
    assert "Raise budget.average_gflops" in status.budget_unmet
    assert after(node, image__max_skew=0.05).budget_unmet
    assert not node.set(budget__tracking=False).successful
    node.tell(SHORT)
    status = node.wait_for_status(lambda s: s.instruction == SHORT and s.state == State.RUNNING)
    assert status.budget_unmet == "" and status.budget_binding == "average_gflops"


def test_the_diagnostics_tell_the_budget(node, costs):
    after(node, budget__peak_gflops=float(costs()[0]))
    node.wait_until(lambda: "peak_gflops" in node.diagnosed("budget", str))
    node.wait_until(lambda: node.diagnosed("budget decided by", str) == "peak_gflops")
    assert node.diagnosed("budget unmet", str) == "no"


# deer set


def deer_set(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "deer_ros.cli", "set", *map(str, arguments)],
        capture_output=True, text=True, timeout=120)


def test_deer_set_sets_several_at_once_and_tells_what_is_in_force(node, costs):
    after(node, budget__average_gflops=float(costs()[1]))
    before = node.statuses[-1].settings_version
    average, peak = costs(scope="step")[1], costs(scope="step")[2]
    done = deer_set("--scope", "step", "--average-gflops", average, "--peak-gflops", peak, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["refused"] is None and told["in_force"]["budget.scope"] == "step"
    assert told["in_force"]["budget.average_gflops"] == average
    status = node.wait_for_status(lambda s: s.budget_scope == "step")
    assert (status.budget_average_gflops, status.budget_peak_gflops) == (average, peak)
    assert status.settings_version == before + 1

    done = deer_set("--preset", "shallow", "--scope", "llm", "--only", "--no-tracking")
    assert done.returncode == 0, done.stderr
    assert "budget.preset:            shallow" in done.stdout
    assert "budget.average_gflops:    none" in done.stdout
    assert "tracking:          off" in done.stdout
    assert node.wait_for_status(lambda s: s.budget_binding == "peak_gflops").exit_layer == 2

    done = deer_set("--average-gflops", 1e-7)
    assert done.returncode == 1 and done.stderr.startswith("deer set: refused: budget.average")
    assert done.stderr.count("\n") == 1
    assert json.loads(deer_set("--json").stdout)["in_force"]["budget.preset"] == "shallow"
    assert deer_set("--preset", "none", "--tracking").returncode == 0


# From the parameter file


def test_a_budget_of_the_file_is_kept_from_the_first_step_and_memory_from_the_loading(
    folder, config, costs, tmp_path
):
    limit = weights_mib(config, 4, "float32")
    with running_policy(tmp_path, model=str(folder), allow_simulation_model=True,
                        safety__frozen_image_timeout=0.0, budget__memory_mib=limit,
                        budget__average_gflops=float(costs()[2])) as client:
        client.wait_until(lambda: client.diagnostics and client.state() == "active")
        client.tell(SHORT)
        status = client.wait_for_status(lambda s: s.exit_layer > 0)
        assert (status.max_layer, status.budget_binding) == (4, "memory_mib")
        first = next(s for s in client.statuses if s.exit_layer)
        assert first.budget_memory_mib == limit
        client.wait_for_status(lambda s: s.max_layer == 6, lambda: client.set(budget__memory_mib=0))


def test_a_node_does_not_run_without_a_limit_that_was_asked_for_wrongly(folder, tmp_path):
    with running_policy(tmp_path, model=str(folder), allow_simulation_model=True,
                        budget__preset="turbo", budget__average_gflops=1e-9) as client:
        client.wait_until(lambda: "stays unconfigured" in client.said())
        assert client.state() == "unconfigured"
        assert "budget.presets has full, balanced, low_power" in client.said()
        assert client.set(budget__preset="").successful
        assert not client.change_state("configure")
        client.wait_until(lambda: "a step of this model costs" in client.said())
        assert client.set(budget__average_gflops=0.0).successful
        assert client.change_state("configure") and client.change_state("activate")


def test_a_gates_guesses_keep_a_budget_and_the_metric_changes_between_two_steps(tmp_path):
    gated = dataclasses.replace(tiny_config().head, gate_width=8)
    folder = write_calibrated_model(
        tmp_path / "model", head=gated, exits=ExitConfig(interval=1, metric="learned"))
    config, _ = inspect_model(folder)
    tokens = len(PromptEncoder.load(folder, config.prompt).encode(SHORT))
    first = float(CostModel(config, tokens).exit_gflops("llm")[0])
    with running_policy(tmp_path, model=str(folder), allow_simulation_model=True,
                        episode__max_duration=3600.0, safety__frozen_image_timeout=0.0) as client:
        client.wait_until(lambda: client.diagnostics and client.state() == "active")
        client.tell(SHORT)
        client.wait_for_status(lambda s: s.state == State.RUNNING and s.exit_layer == 6)
        # Nothing is compared: the exit after layer 1 can be taken, too.
        assert after(client, budget__average_gflops=first).exit_layer == 1
        result = client.set_all(exit__metric="l2")
        assert not result.successful and "metric learned, and l2 is asked for" in result.reason
        result = client.set_all(exit__metric="l2", budget__solver="gamma")
        assert not result.successful and "before the first exit can be taken" in result.reason
        status = after(
            client, exit__metric="l2", budget__solver="gamma", budget__average_gflops=2 * first)
        assert status.exit_layer > 1
