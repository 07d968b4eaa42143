"""What runs the episodes of single tasks."""

from __future__ import annotations

import numpy as np
import torch
from tiny_model import tiny_config, write_tiny_model

from deer_ros.budget.budget import Budget
from deer_ros.budget.cost import CostModel
from deer_ros.budget.memory import weights_mib
from deer_ros.evaluation.episode import Setting
from deer_ros.evaluation.rollouts import Job, start
from deer_ros.observation import Observation

WORDS = "open the drawer"
TOKENS = 3 + len(WORDS.split())


class Still:
    """A simulated robot that stands still."""

    def __init__(self, config) -> None:
        self.instruction, self.success = "", False

    def reset(self, task, seed, said) -> None:
        self.instruction = WORDS

    def observation(self) -> Observation:
        return Observation(*np.zeros((2, 40, 50, 3), np.uint8))

    def step(self, action, gripper) -> None: ...


def test_a_budget_is_for_what_is_said_now(tmp_path):
    """A prompt of usual length costs more than this one, and would be refused."""
    model = write_tiny_model(tmp_path / "model")
    least = CostModel(tiny_config(), TOKENS).exit_gflops("llm")[0]
    setting = Setting("tight", budget=Budget(peak_gflops=1.1 * least))
    rollout = start(str(model), Still, 2)(Job(setting, "task", 0, "task"))
    assert rollout.exits == {2: 2}


def test_settings_after_a_budget_of_memory_run_as_deep_as_before_it(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    least_mib = weights_mib(tiny_config(), 2, "float32")
    tight = Setting("tight", budget=Budget(memory_mib=1.01 * least_mib))
    run = start(str(model), Still, 2)
    for after, exits in (
        (Setting("full depth", exit_layer=6), {6: 2}),
        (Setting("all the way"), {6: 2}),
        (Setting("never", thresholds=(0.0, 0.0, 0.0)), {6: 2}),
    ):
        assert run(Job(tight, "task", 0, "task")).exits == {2: 2}
        assert run(Job(after, "task", 0, "task")).exits == exits


def test_torch_keeps_its_threads_unless_told_otherwise(tmp_path):
    model = write_tiny_model(tmp_path / "model")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        start(str(model), Still, threads=None)
        assert torch.get_num_threads() == 2
        start(str(model), Still)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
