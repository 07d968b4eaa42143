"""One step of the authors' training: answers, losses and gradients."""

from __future__ import annotations

import golden_data
import numpy as np
import pytest
import torch
from golden_data import assert_close
from safetensors.torch import load_file

from deer_ros.checkpoint.official_names import Dropped, head_mlp_names, translate
from deer_ros.training.config import PolicyPhase
from deer_ros.training.policy_phase import MultiExitTraining, pooled

# The weight of the gripper's loss on CALVIN.
PHASE = PolicyPhase(gripper_weight=0.01, auxiliary_weight=1.0, constant_exit_weight=0.0)
FROZEN = ("tower.", ".block.")


def merged_shapes() -> dict[str, tuple[int, ...]]:
    merged = load_file(golden_data.FOLDER / "merged.safetensors")
    return {name: tuple(tensor.shape) for name, tensor in merged.items()}


def auxiliary_names(training: MultiExitTraining) -> dict[str, str]:
    """The authors' names of the auxiliary heads' tensors, and theirs here.

    They have the shared head's names but for the beginning; the last layer's head has its own.
    """
    shapes = merged_shapes()
    last = len(training.auxiliary) - 1
    names = {}
    for number in range(last + 1):
        prefix = "lm_head." if number == last else f"lm_exit_modules.{number}."
        alike = {
            "extra_exit." + name.removeprefix(prefix): shape
            for name, shape in shapes.items() if name.startswith(prefix)
        }
        mlps = head_mlp_names(alike)
        for name in alike:
            here = mlps[name] if name in mlps else translate(name)[0]
            official = prefix + name.removeprefix("extra_exit.")
            names[official] = f"auxiliary.{number}." + here.removeprefix("head.")
    return names


def official_to_here(name: str, training: MultiExitTraining) -> str:
    auxiliary = auxiliary_names(training)
    if name in auxiliary:
        return auxiliary[name]
    mlps = head_mlp_names(merged_shapes())
    here = mlps[name] if name in mlps else translate(name)
    assert here is not None and not isinstance(here, Dropped), name
    return "model." + (here if isinstance(here, str) else here[0])


@pytest.fixture
def training() -> MultiExitTraining:
    policy = golden_data.golden_policy()
    training = MultiExitTraining(policy.model, PHASE)
    merged = load_file(golden_data.FOLDER / "merged.safetensors")
    named = auxiliary_names(training)
    own = {here: merged[official] for official, here in named.items()}
    missing, unexpected = training.load_state_dict(own, strict=False)
    assert not unexpected and all(name.startswith("model.") for name in missing)
    for name, parameter in training.named_parameters():
        parameter.requires_grad_(not any(part in name for part in FROZEN))
    return training.eval()


def features_of(training: MultiExitTraining) -> torch.Tensor:
    golden = {k: torch.from_numpy(v) for k, v in golden_data.arrays("train").items()}
    windows, steps = golden["actions"].shape[:2]
    pictures = torch.stack([golden["static"], golden["gripper"]], dim=2).flatten(0, 1)
    ids = golden["input_ids"].repeat_interleave(steps, dim=0)
    mask = golden["attention_mask"].repeat_interleave(steps, dim=0)
    model = training.model
    prompt, latents = model.read(ids, mask), model.see(pictures)
    hidden = torch.stack(model.hidden_states(prompt, latents), dim=1)
    assert_close(hidden.detach(), golden["hidden"].numpy(), "hidden states")
    return pooled(model, prompt, latents, None).unflatten(1, (windows, -1))


def samplings(training: MultiExitTraining) -> list[np.ndarray]:
    """The recorded layers, counted from 0, as exit numbers."""
    exits = np.array(training.model.config.exit_layers) - 1
    recorded = golden_data.arrays("train")
    return [np.searchsorted(exits, recorded[f"sampled_layers_{n}"]) for n in (1, 2)]


def losses_of(training: MultiExitTraining, features: torch.Tensor) -> torch.Tensor:
    actions = torch.from_numpy(golden_data.arrays("train")["actions"])
    return sum(training.losses(features, actions, samplings(training)).values())


def test_every_head_answers_as_the_authors_heads_do(training):
    answers = training.answers(features_of(training), samplings(training))
    # Theirs come auxiliary heads first, then the shared one.
    ordered = [a for a in answers if a[0] == "auxiliary"] + [a for a in answers if a[0] == "shared"]
    golden = golden_data.arrays("train")
    assert len(ordered) == len(golden["head_pose"])
    for number, (_, _, output) in enumerate(ordered):
        assert_close(output.pose.detach(), golden["head_pose"][number], f"pose of head {number}")
        assert_close(
            output.gripper_logit.detach(), golden["head_gripper_logit"][number],
            f"gripper of head {number}",
        )


@pytest.mark.parametrize("phase", ["joint", "head_only"])
def test_the_loss_and_the_gradients_are_the_authors(training, phase):
    recorded = golden_data.text("train")[phase]
    features = features_of(training)
    loss = losses_of(training, features if phase == "joint" else features.detach())
    np.testing.assert_allclose(float(loss.detach()), recorded["loss_calvin"], rtol=1e-4)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(training.parameters(), 1.0)
    np.testing.assert_allclose(float(norm), recorded["grad_norm_before_clip"], rtol=1e-4)
    parameters = dict(training.named_parameters())
    compared = 0
    for key, golden in golden_data.arrays("train").items():
        if phase == "joint" and key.startswith("grad:"):
            name = official_to_here(key.removeprefix("grad:"), training)
            assert_close(parameters[name].grad, golden, key)
            compared += 1
    assert compared or phase == "head_only"
