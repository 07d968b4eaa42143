from __future__ import annotations

import dataclasses

import pytest
import torch
from tiny_model import tiny_config

from deer_ros.model.action_head import HeadState, pool
from deer_ros.model.config import (
    DeerConfig,
    HeadConfig,
    LanguageConfig,
    PromptConfig,
    VisionConfig,
)
from deer_ros.model.deer import DeerModel
from deer_ros.model.language import alibi
from deer_ros.training.policy_phase import pooled

PROMPT = PromptConfig(image_token=12, end_of_chunk_token=11, end_of_text_token=0, padding_token=13)
IDS = torch.tensor([[12, 3, 4, 5, 11, 0]])


def tiny_deer(max_layer: int | None = None, **changes) -> DeerModel:
    torch.manual_seed(0)
    model = DeerModel(tiny_config(prompt=PROMPT, **changes), max_layer).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("_gate"):
            torch.nn.init.constant_(parameter, 0.5)
    return model.requires_grad_(False)


def layers_run(model: DeerModel) -> list[int]:
    """Fills with the number of each layer (from 1) as it runs."""
    run: list[int] = []
    for number, layer in enumerate(model.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: run.append(number))
    return run


def answers(model: DeerModel, layers, state=None):
    latents = model.see(torch.rand(1, 2, 3, 32, 32, generator=torch.manual_seed(1)))
    state = state or model.head.initial_state()
    return model.answers(model.read(IDS), latents, state, layers)


def test_layers_run_only_as_their_answers_are_asked_for():
    model = tiny_deer()
    run = layers_run(model)
    asked = answers(model, (1, 2, 6))
    assert run == []
    assert [next(asked).layer for _ in range(2)] == [1, 2]
    assert run == [1, 2]
    assert [a.layer for a in asked] == [6]
    assert run == [1, 2, 3, 4, 5, 6]


def test_an_answer_is_the_head_on_the_pooled_output_of_its_layer():
    model = tiny_deer()
    latents = model.see(torch.rand(1, 2, 3, 32, 32, generator=torch.manual_seed(1)))
    hidden = model.hidden_states(model.read(IDS), latents)
    for answer in answers(model, (1, 2, 4, 6)):
        whole = model.head(pool(hidden[answer.layer - 1]).unsqueeze(1))
        torch.testing.assert_close(answer.pose, whole.pose[:, 0])
        torch.testing.assert_close(answer.gripper_probability, whole.gripper_probability[:, 0])


def projecting(**changes) -> DeerModel:
    head = dataclasses.replace(tiny_config().head, layer_projections=True)
    return tiny_deer(head=head, **changes)


def test_an_exits_own_projection_is_all_between_it_and_the_shared_head():
    model, plain = projecting(), tiny_deer()
    plain.load_state_dict({n: w for n, w in model.state_dict().items() if "projections" not in n})
    for ours, theirs in zip(answers(model, (1, 4, 6)), answers(plain, (1, 4, 6))):
        torch.testing.assert_close(ours.pose, theirs.pose)
    torch.nn.init.normal_(model.head.projections[1].weight)  # of the second exit, after layer 4
    poses = [[a.pose for a in answers(m, (1, 4, 6))] for m in (model, plain)]
    assert [torch.allclose(ours, theirs) for ours, theirs in zip(*poses)] == [True, False, True]


def test_exits_alone_have_projections_and_a_layer_before_one_is_heard_as_it_is():
    model = projecting()
    assert len(model.head.projections) == len(model.config.exit_layers) == 3
    for projection in model.head.projections:
        torch.nn.init.normal_(projection.weight)
    hidden = torch.randn(1, 5, 16)
    heard = [model.head.hear(hidden, layer) for layer in range(1, 7)]
    for layer in (1, 3, 5):
        assert torch.equal(heard[layer - 1], heard[layer])
    assert not torch.allclose(heard[1], heard[2])


def test_training_hears_what_a_step_hears():
    model = projecting()
    for projection in model.head.projections:
        torch.nn.init.normal_(projection.weight)
    latents = model.see(torch.rand(1, 2, 3, 32, 32, generator=torch.manual_seed(1)))
    heard = pooled(model, model.read(IDS), latents, None)
    for features, answer in zip(heard, answers(model, model.config.exit_layers)):
        torch.testing.assert_close(model.head(features[None]).pose[:, 0], answer.pose)


def test_a_model_cut_to_max_layer_has_only_those_layers_and_answers_the_same():
    whole, cut = tiny_deer(), tiny_deer(max_layer=5)
    assert (whole.max_layer, cut.max_layer) == (6, 4)
    assert len(cut.layers) == 4
    cut.load_state_dict({n: w for n, w in whole.state_dict().items() if n in cut.state_dict()})
    ours, theirs = list(answers(cut, (4,))), list(answers(whole, (4,)))
    assert torch.equal(ours[0].pose, theirs[0].pose)


def test_a_model_of_no_layers_is_refused():
    with pytest.raises(ValueError, match="max_layer is 1; the first exit of this model is"):
        tiny_deer(max_layer=1)


@pytest.mark.parametrize("ids", [[[12, 16]], [[12, -1]], [[12, 99999]]])
def test_token_ids_outside_the_vocabulary_are_refused(ids):
    with pytest.raises(ValueError, match="this model's vocabulary has 0 to 15"):
        tiny_deer().read(torch.tensor(ids))


@pytest.mark.parametrize("norm", [True, False])
def test_a_sequence_of_steps_is_what_the_whole_sequence_gives(norm):
    head = HeadConfig(lstm_width=8, lstm_layers=3, lstm_layer_norm=norm, mlp_widths=(8, 4),
                      mlp_layer_norm=norm, lstm_dropout=0.0, mlp_dropout=0.0)
    model = tiny_deer(head=head)
    features = torch.randn(2, 5, 16)
    whole = model.head(features)
    state = model.head.initial_state(2)
    for t in range(5):
        step = model.head.step(features[:, t], state, model.head.carry(state))
        torch.testing.assert_close(step.pose[:, 0], whole.pose[:, t])
        torch.testing.assert_close(step.gripper_logit[:, 0], whole.gripper_logit[:, t])
        state = step.state
    torch.testing.assert_close(state, whole.state)


def test_an_answer_depends_on_the_recurrent_state_and_leaves_it():
    model = tiny_deer()
    zero = model.head.initial_state()
    other = HeadState(zero.hidden + 1.0, zero.cell - 1.0)
    first, second = (next(answers(model, (6,), state)).pose for state in (zero, other))
    assert not torch.allclose(first, second)
    assert torch.equal(zero.hidden, torch.zeros_like(zero.hidden))
    assert torch.equal(other.cell, torch.full_like(other.cell, -1.0))


def test_a_later_token_changes_no_earlier_one():
    model = tiny_deer()
    latents = model.see(torch.rand(1, 2, 3, 32, 32))
    changed = IDS.clone()
    changed[0, 3] = 7
    ours, theirs = (model.hidden_states(model.read(ids), latents)[-1] for ids in (IDS, changed))
    torch.testing.assert_close(ours[:, :3], theirs[:, :3])
    assert not torch.allclose(ours[:, 3:], theirs[:, 3:])


def test_both_cameras_reach_the_answer_and_are_told_apart():
    model = tiny_deer()
    pictures = torch.rand(1, 2, 3, 32, 32)
    blind = pictures * torch.tensor([1.0, 0.0])[:, None, None, None]
    prompt, state = model.read(IDS), model.head.initial_state()
    poses = [
        next(model.answers(prompt, model.see(seen), state, (6,))).pose
        for seen in (pictures, pictures.flip(1), blind)
    ]
    assert not torch.allclose(poses[0], poses[1])
    assert not torch.allclose(poses[0], poses[2])


def test_the_clip_tower_gives_its_patch_tokens_without_class_token_and_final_norm():
    vision = VisionConfig("clip", image_size=32, width=16, patch_size=8, layers=2, heads=2)
    tower = tiny_deer(vision=vision).tower
    assert tower(torch.rand(3, 2, 3, 32, 32)).shape == (3, 2, 16, 16)
    assert not any("post_layernorm" in name for name, _ in tower.named_parameters())


def test_alibi_falls_off_with_distance_and_differs_from_the_relative_form_by_a_constant():
    config = LanguageConfig(width=32, heads=4, alibi_bias_max=8.0)
    bias = alibi(config, 5)[0, :, 0]
    slopes = torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8])
    relative = -slopes[:, None] * (4 - torch.arange(5.0))
    torch.testing.assert_close(bias, relative)


@pytest.mark.parametrize(("config", "head", "layer", "layer_with_cross_attention"), [
    (DeerConfig(), 40_948_231, None, 50_339_840 + 36_708_354),
    (DeerConfig(language=LanguageConfig(4096, 16, 32, qk_layer_norm=False,
                                        cross_attention_every=4)), 49_336_839, 201_334_784, None),
])
def test_the_published_sizes_have_the_published_numbers_of_parameters(
    config, head, layer, layer_with_cross_attention
):
    with torch.device("meta"):
        model = DeerModel(config)

    def parameters(part) -> int:
        return sum(p.numel() for p in part.parameters())

    assert parameters(model.resampler) == 63_019_008
    assert parameters(model.head) == head
    for found in model.layers:
        expected = layer if found.cross_attention is None else layer_with_cross_attention
        assert expected in (None, parameters(found))
