"""Names of tensors in the authors' files, and what they are called here.

The live model's names: no data-parallel prefix, the language layers as
`lang_encoder.transformer.blocks.N.{decoder_layer,gated_cross_attn_layer}`, counted from 0.
"""

from __future__ import annotations

import re

_FEED_FORWARD = {"0": "norm", "1": "up", "3": "down"}
_HEADS = {"actions": "pose", "gripper": "gripper"}
_MPT = {
    "ln_1": "norm_1", "norm_1": "norm_1", "ln_2": "norm_2", "norm_2": "norm_2",
    "attn.Wqkv": "to_qkv", "attn.out_proj": "to_out", "attn.q_ln": "norm_q", "attn.k_ln": "norm_k",
    "mlp.mlp_up": "up", "mlp.mlp_down": "down", "ffn.up_proj": "up", "ffn.down_proj": "down",
}
_CLIP = {
    "conv1.weight": "embeddings.patch_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
}
_CLIP_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}


def model_name(name: str) -> str | None:
    """Name here of a tensor of the live model, or None where this package has no use for it.

    The vision tower's fused `in_proj` is not a renaming: see `vision_names`.
    """
    for pattern, rename in _RULES:
        if match := pattern.fullmatch(name):
            return rename(match)
    return None


def vision_names(name: str) -> list[str]:
    """Names here of a tensor of open_clip's `visual.`; three for the fused query, key and value.

    Empty where this package has no use for it: the final norm and the projection.
    """
    if name in _CLIP:
        return [f"tower.clip.{_CLIP[name]}"]
    match = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+?)[._](weight|bias)", name)
    if not match:
        return []
    layer = f"tower.clip.encoder.layers.{match[1]}"
    if match[2] == "attn.in_proj":
        return [f"{layer}.self_attn.{part}_proj.{match[3]}" for part in "qkv"]
    return [f"{layer}.{_CLIP_BLOCK[match[2]]}.{match[3]}"] if match[2] in _CLIP_BLOCK else []


def _resampler_attention(match: re.Match[str]) -> str:
    part = match[2].replace("norm_media", "norm_tokens")
    return f"resampler.layers.{match[1]}.{part}"


def _gated(match: re.Match[str]) -> str | None:
    layer, part = f"layers.{match[1]}.cross_attention", match[2]
    if part in ("attn_gate", "ff_gate"):
        gate = {"attn_gate": "attention_gate", "ff_gate": "feed_forward_gate"}[part]
        return f"{layer}.{gate}"
    if part.startswith("attn."):
        return f"{layer}.{part.removeprefix('attn.')}"
    _, index, kind = part.split(".")
    return f"{layer}.feed_forward.{_FEED_FORWARD[index]}.{kind}"


def _lstm(match: re.Match[str]) -> str:
    index, part = int(match[1]), match[2]
    # Every layer of the original's stack is an LSTM, a norm and a dropout.
    return f"head.lstm.{index // 3}.{part}" if index % 3 == 0 else f"head.norms.{index // 3}.{part}"


_RULES = [
    (re.compile(r"perceiver\.(latents|norm\.(?:weight|bias))"), lambda m: f"resampler.{m[1]}"),
    (re.compile(r"perceiver\.layers\.(\d+)\.0\.(.+)"), _resampler_attention),
    (
        re.compile(r"perceiver\.layers\.(\d+)\.1\.(\d)\.(weight|bias)"),
        lambda m: f"resampler.layers.{m[1]}.feed_forward.{_FEED_FORWARD[m[2]]}.{m[3]}",
    ),
    (re.compile(r"lang_encoder\.transformer\.wte\.weight"), lambda m: "embedding.weight"),
    (
        re.compile(r"lang_encoder\.transformer\.blocks\.(\d+)\.decoder_layer\.(.+)\.weight"),
        lambda m: f"layers.{m[1]}.block.{_MPT[m[2]]}.weight" if m[2] in _MPT else None,
    ),
    (
        re.compile(r"lang_encoder\.transformer\.blocks\.(\d+)\.gated_cross_attn_layer\.(.+)"),
        _gated,
    ),
    (re.compile(r"extra_exit\.rnn\.layers\.(\d+)\.(.+)"), _lstm),
    (
        re.compile(r"extra_exit\.(actions|gripper)\.mlp\.(\d+)\.(weight|bias)"),
        lambda m: f"head.{_HEADS[m[1]]}.{m[2]}.{m[3]}",
    ),
]
