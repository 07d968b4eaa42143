"""Names of tensors in the authors' files, and what they are called here.

A name goes two steps: `live_name` undoes what a file's writer did to it (prefixes, aliases), which
gives the name in the authors' running model; `translate` says what that is here. The authors count
language layers from 0, and so do the names of tensors here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from deer_ros.model.action_head import mlp_slot

Shape = tuple[int, ...]

_BLOCK = r"lang_encoder\.transformer\.blocks\.(\d+)"
_ALIASES = [
    (re.compile(r"lang_encoder\.old_decoder_blocks\.(\d+)\."), "decoder_layer"),
    (re.compile(r"lang_encoder\.gated_cross_attn_layers\.(\d+)\."), "gated_cross_attn_layer"),
]


@dataclass(frozen=True)
class Dropped:
    """A tensor that is known and not needed, and why."""

    reason: str


def live_name(role: str, name: str) -> str:
    """The name in the authors' running model of a tensor in the file that plays `role`.

    role: `mpt`, `clip`, `openflamingo` or `deer`.
    """
    name = name.removeprefix("module.")  # of the data-parallel wrapper
    if role == "clip":
        return f"vision_encoder.{name}"
    if role == "mpt":
        name = re.sub(r"^(transformer\.blocks\.\d+\.)", r"\1decoder_layer.", name)
        return f"lang_encoder.{name}"
    for alias, part in _ALIASES:
        name = alias.sub(rf"lang_encoder.transformer.blocks.\1.{part}.", name)
    return name


def translate(name: str) -> tuple[str, ...] | Dropped | None:
    """What a live name is called here; None where it is not known.

    Three names for a fused tensor: query, key and value, stacked along the first axis.
    """
    for pattern, rename in _RULES:
        if match := pattern.fullmatch(name):
            names = rename(match)
            return (names,) if isinstance(names, str) else names
    for pattern, reason in _DROPPED:
        if pattern.fullmatch(name):
            return Dropped(reason)
    return None


def head_mlp_names(shapes: Mapping[str, Shape]) -> dict[str, str]:
    """Names here of the shared head's two MLPs, given the shapes of all live names of a file.

    The authors number layers, norms, activations and dropouts together, differently for every kind
    of dropout; matrices and the norms that follow them are counted instead.
    """
    names = {}
    for theirs, ours in (("actions", "pose"), ("gripper", "gripper")):
        pattern = re.compile(rf"extra_exit\.{theirs}\.mlp\.(\d+)\.weight")
        indices = sorted(int(m[1]) for m in map(pattern.fullmatch, shapes) if m)
        layer = -1
        for index in indices:
            live = f"extra_exit.{theirs}.mlp.{index}"
            is_norm = len(shapes[f"{live}.weight"]) == 1
            layer += not is_norm
            for kind in ("weight", "bias"):
                names[f"{live}.{kind}"] = f"head.{ours}.{mlp_slot(layer, is_norm)}.{kind}"
    return names


_FEED_FORWARD = {"0": "norm", "1": "up", "3": "down"}
_MPT = {
    "ln_1": "norm_1", "norm_1": "norm_1", "ln_2": "norm_2", "norm_2": "norm_2",
    "attn.Wqkv": "to_qkv", "attn.out_proj": "to_out", "attn.q_ln": "norm_q", "attn.k_ln": "norm_k",
    "mlp.mlp_up": "up", "mlp.mlp_down": "down", "ffn.up_proj": "up", "ffn.down_proj": "down",
}
_GATES = {"attn_gate": "attention_gate", "ff_gate": "feed_forward_gate"}
_OPEN_CLIP = {
    "conv1.weight": "embeddings.patch_embedding.weight",
    "class_embedding": "embeddings.class_embedding",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_pre.weight": "pre_layrnorm.weight",
    "ln_pre.bias": "pre_layrnorm.bias",
}
_OPEN_CLIP_BLOCK = {
    "ln_1": "layer_norm1", "ln_2": "layer_norm2", "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2",
}


def _alternatives(names: Mapping[str, str]) -> str:
    return "|".join(map(re.escape, names))


def _fused(match: re.Match[str]) -> tuple[str, ...]:
    layer = f"tower.clip.encoder.layers.{match[1]}.self_attn"
    return tuple(f"{layer}.{part}_proj.{match[2]}" for part in "qkv")


def _resampler_attention(match: re.Match[str]) -> str:
    part = match[2].replace("norm_media", "norm_tokens")
    return f"resampler.layers.{match[1]}.{part}"


def _lstm_stack(match: re.Match[str]) -> str | None:
    # Every layer of the stack is an LSTM, a norm and a dropout.
    layer, place = divmod(int(match[1]), 3)
    return f"head.{('lstm', 'norms')[place]}.{layer}.{match[2]}" if place < 2 else None


_Rename = Callable[[re.Match[str]], "str | tuple[str, ...] | None"]
_RULES: list[tuple[re.Pattern[str], _Rename]] = [
    (re.compile(pattern), rename) for pattern, rename in (
        (rf"vision_encoder\.visual\.({_alternatives(_OPEN_CLIP)})",
         lambda m: f"tower.clip.{_OPEN_CLIP[m[1]]}"),
        (rf"vision_encoder\.visual\.transformer\.resblocks\.(\d+)"
         rf"\.({_alternatives(_OPEN_CLIP_BLOCK)})\.(weight|bias)",
         lambda m: f"tower.clip.encoder.layers.{m[1]}.{_OPEN_CLIP_BLOCK[m[2]]}.{m[3]}"),
        (r"vision_encoder\.visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)",
         _fused),
        (r"vision_encoder\.vision_model\.(embeddings\.class_embedding"
         r"|(?:embeddings\.(?:patch|position)_embedding|pre_layrnorm"
         r"|encoder\.layers\.\d+\.(?:layer_norm[12]|self_attn\.(?:[qkv]|out)_proj|mlp\.fc[12]))"
         r"\.(?:weight|bias))",
         lambda m: f"tower.clip.{m[1]}"),
        (r"perceiver\.(latents|norm\.(?:weight|bias))", lambda m: f"resampler.{m[1]}"),
        (r"perceiver\.layers\.(\d+)\.0\.((?:norm_media|norm_latents)\.(?:weight|bias)"
         r"|to_(?:q|kv|out)\.weight)", _resampler_attention),
        (r"perceiver\.layers\.(\d+)\.1\.([013])\.(weight|bias)",
         lambda m: f"resampler.layers.{m[1]}.feed_forward.{_FEED_FORWARD[m[2]]}.{m[3]}"),
        (r"lang_encoder\.transformer\.wte\.weight", lambda m: "embedding.weight"),
        (rf"{_BLOCK}\.decoder_layer\.({_alternatives(_MPT)})\.weight",
         lambda m: f"layers.{m[1]}.block.{_MPT[m[2]]}.weight"),
        (rf"{_BLOCK}\.gated_cross_attn_layer\.({_alternatives(_GATES)})",
         lambda m: f"layers.{m[1]}.cross_attention.{_GATES[m[2]]}"),
        (rf"{_BLOCK}\.gated_cross_attn_layer\.attn\."
         r"(norm\.(?:weight|bias)|to_(?:q|kv|out)\.weight)",
         lambda m: f"layers.{m[1]}.cross_attention.{m[2]}"),
        (rf"{_BLOCK}\.gated_cross_attn_layer\.ff\.([013])\.(weight|bias)",
         lambda m: f"layers.{m[1]}.cross_attention.feed_forward.{_FEED_FORWARD[m[2]]}.{m[3]}"),
        (r"extra_exit\.rnn\.layers\.(\d+)\.((?:weight|bias)(?:_(?:ih|hh)_l0)?)", _lstm_stack),
        (r"extra_exit\.rnn\.((?:weight|bias)_(?:ih|hh))_l(\d+)",
         lambda m: f"head.lstm.{m[2]}.{m[1]}_l0"),
    )
]
_DROPPED = [
    (re.compile(pattern), reason) for pattern, reason in (
        (r"(?:lm_head|lm_exit_modules\.\d+)\..+", "a head of training only"),
        (r"lang_encoder\.transformer\.(?:ln_f|norm_f)\.weight", "the final norm: nothing uses it"),
        (r"lang_encoder\.lm_head\.weight", "the vocabulary projection: no text is generated"),
        (r"vision_encoder\.(?:visual\.(?:ln_post\.(?:weight|bias)|proj)"
         r"|vision_model\.post_layernorm\.(?:weight|bias)|visual_projection\.weight)",
         "CLIP's final norm and projection: patch tokens are taken before them"),
        (r"vision_encoder\.(?:vision_model\.embeddings\.position_ids|attn_mask|input_resolution"
         r"|context_length|vocab_size)", "a constant"),
        (r"vision_encoder\.(?:logit_scale|logit_bias|text_projection(?:\.weight)?|ln_final\..+"
         r"|positional_embedding|token_embedding\.weight|transformer\..+|text\..+|text_model\..+)",
         "CLIP's text tower"),
    )
]
