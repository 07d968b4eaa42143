"""What a policy holds in memory, measured; benchmarks/memory.py does so at the published size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import INSTRUCTIONS, tiny_config, write_tiny_model

from deer_ros.checkpoint.source import COPIED_BYTES
from deer_ros.model.config import LanguageConfig

TOLERANCE = 0.05  # of the parameters' bytes
PROGRAM = """
import json, re, sys
from pathlib import Path
import numpy as np
from deer_ros import Budget, DeerPolicy, Observation
from deer_ros.budget.memory import weights_mib
from deer_ros.checkpoint import source
from deer_ros.checkpoint.directory import read_config

folder, instruction, dtype, by, copied_bytes = sys.argv[1:]
source.COPIED_BYTES = int(copied_bytes)
stored = "float32" if dtype == "auto" else dtype
predicted = {n: weights_mib(read_config(folder), n, stored) for n in (2, 6)}
observation = Observation(*np.zeros((2, 32, 32, 3), np.uint8))

def resident_after_a_step():
    policy.step(observation, instruction, exit_layer=policy.max_layer)
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", status)[1]) * 1024

def change(depth):
    if by == "max_layer":
        policy.adopt(policy.load_layers(depth))
    else:
        policy.set_budget(Budget(memory_mib=predicted[depth] + 1))
    assert len(policy.model.layers) == depth

first = {"max_layer": 2} if by == "max_layer" else {"budget": Budget(memory_mib=predicted[2] + 1)}
policy = DeerPolicy.from_pretrained(folder, "cpu", dtype, **first)
assert len(policy.model.layers) == 2
figures = [resident_after_a_step()]
for depth in (6, 2):
    change(depth)
    figures.append(resident_after_a_step())
print(json.dumps([*figures, (predicted[6] - predicted[2]) * 2**20]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """21 MB a layer: more than what else comes and goes."""
    sizes = {**vars(tiny_config().language), "width": 512, "mlp_ratio": 4, "heads": 8}
    sizes["cross_attention_mlp_ratio"] = 4
    folder = tmp_path_factory.mktemp("models") / "large"
    return write_tiny_model(folder, language=LanguageConfig(**sizes))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is Linux's")
@pytest.mark.parametrize(
    ("dtype", "by", "copied_bytes"),
    [("auto", "max_layer", 0), ("auto", "memory_mib", 0), ("auto", "memory_mib", COPIED_BYTES),
     ("bfloat16", "memory_mib", 0)],
)  # fmt: skip
def test_layers_cost_what_was_predicted_and_give_it_back(folder, dtype, by, copied_bytes):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), INSTRUCTIONS[0], dtype, by,
         str(copied_bytes)],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two, six, two_again, predicted = json.loads(done.stdout)
    assert six - two == pytest.approx(predicted, rel=TOLERANCE)
    assert six - two_again == pytest.approx(predicted, rel=TOLERANCE)
