"""Prompts of different lengths in one batch, padded on the right."""

from __future__ import annotations

import golden_data as golden
import numpy as np
import torch

from deer_ros.model.action_head import pool


@torch.inference_mode()
def test_a_batch_of_padded_prompts_answers_as_in_the_original():
    policy, arrays, pictures = (
        golden.golden_policy(), golden.arrays("batch"), golden.arrays("inputs")
    )
    model, rows, prepare = policy.model, len(arrays["input_ids"]), policy.preprocessor
    seen = np.stack([
        [prepare(pictures[camera][i]) for camera in ("static_u8", "gripper_u8")]
        for i in range(rows)
    ])
    latents = model.see(torch.from_numpy(seen))
    ids, mask = (torch.from_numpy(arrays[k]) for k in ("input_ids", "attention_mask"))
    prompt = model.read(ids, mask)

    hidden = model.hidden_states(prompt, latents)
    golden.assert_close(torch.stack(hidden, dim=1), arrays["hidden"], "hidden")
    pooled = torch.stack([pool(h) for h in hidden], dim=1)
    golden.assert_close(pooled, arrays["pooled"], "pooled")

    state, exits = model.head.initial_state(rows), model.config.exit_layers
    answers = list(model.answers(prompt, latents, state, exits))
    golden.assert_close(torch.stack([a.pose for a in answers], 1), arrays["exit_pose"], "pose")
    # Recorded with another bias of the gripper's last layer (see README.md): one constant apart.
    ours = torch.logit(torch.stack([a.gripper_probability for a in answers], 1))
    theirs = torch.logit(torch.from_numpy(arrays["exit_gripper_prob"]))
    offset = (theirs - ours).mean()
    golden.assert_close(ours + offset, theirs.numpy(), "gripper logits")


@torch.inference_mode()
def test_padding_changes_no_other_token():
    policy, arrays = golden.golden_policy(), golden.arrays("batch")
    model = policy.model
    row = int(np.argmin(arrays["attention_mask"].sum(axis=1)))
    mask = torch.from_numpy(arrays["attention_mask"][row])[None]
    ids = torch.from_numpy(arrays["input_ids"][row])[None]
    length = int(mask.sum())
    assert length < ids.shape[1]
    size = policy.config.vision.image_size
    latents = model.see(torch.rand(1, 2, 3, size, size))
    padded = model.hidden_states(model.read(ids, mask), latents)[-1][:, :length]
    alone = model.hidden_states(model.read(ids[:, :length]), latents)[-1]
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)
