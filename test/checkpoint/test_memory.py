"""What a policy holds in memory, measured; benchmarks/memory.py does so at the published size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_model import INSTRUCTIONS, tiny_config, write_tiny_model

from deer_ros.model.config import LanguageConfig

GROWTH_TOLERANCE = 0.05  # of the parameters' bytes
# Converted weights are the allocator's, which may keep a few MB for itself.
RETURN_TOLERANCE = 0.1
PROGRAM = """
import json, re, sys
from pathlib import Path
import numpy as np
from deer_ros import DeerPolicy, Observation

folder, instruction, dtype = sys.argv[1:]
observation = Observation(*np.zeros((2, 32, 32, 3), np.uint8))

def resident_after_a_step():
    policy.step(observation, instruction, exit_layer=policy.max_layer)
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", status)[1]) * 1024

policy = DeerPolicy.from_pretrained(folder, "cpu", dtype, max_layer=2)
figures = [resident_after_a_step()]
for depth in (6, 2):
    policy.adopt(policy.load_layers(depth))
    figures.append(resident_after_a_step())
layer = sum(p.numel() * p.element_size() for p in policy.model.layers[0].parameters())
print(json.dumps([*figures, layer]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """21 MB a layer: more than what else comes and goes."""
    sizes = {**vars(tiny_config().language), "width": 512, "mlp_ratio": 4, "heads": 8}
    sizes["cross_attention_mlp_ratio"] = 4
    folder = tmp_path_factory.mktemp("models") / "large"
    return write_tiny_model(folder, language=LanguageConfig(**sizes))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="resident memory is Linux's")
@pytest.mark.parametrize("dtype", ["auto", "bfloat16"])
def test_layers_cost_their_own_bytes_and_give_them_back(folder, dtype):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), INSTRUCTIONS[0], dtype],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    two, six, two_again, layer = json.loads(done.stdout)
    assert six - two == pytest.approx(4 * layer, rel=GROWTH_TOLERANCE)
    assert six - two_again == pytest.approx(4 * layer, rel=RETURN_TOLERANCE)
