"""Files as the authors' training writes them, for models of any size: names, shapes, random values.

Written from the published list of keys, independently of the code that reads them.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Official:
    """Sizes and flags of an official model; the default is a tiny relative of the 3B one."""

    d_model: int = 16
    llm_heads: int = 2
    layers: int = 4
    mpt_layers: int = 6
    mlp_ratio: int = 4
    vocab: int = 12
    mpt_vocab: int = 20
    qk_norm: bool = True
    seven_b_names: bool = False
    cross_every: int = 1
    cross_heads: int = 2
    cross_dim: int = 4
    perceiver_depth: int = 2
    latents: int = 3
    image: int = 16
    patch: int = 8
    vision: int = 8
    vision_layers: int = 2
    vision_head: int = 4
    lstm: int = 8
    lstm_layers: int = 4
    lstm_norm: bool = True
    mlp_widths: tuple[int, ...] = (10, 6)
    mlp_norm: bool = True
    dropout_mode: str = "layerwise"
    dropout: float = 0.4
    interval: int = 2

    @property
    def specials(self) -> dict[str, int]:
        v = self.vocab
        return {"<|endoftext|>": 0, "<|endofchunk|>": v - 3, "<image>": v - 2, "<PAD>": v - 1}

    def description(self) -> dict[str, Any]:
        """What the files do not tell, in the authors' words."""
        words = {"<unk>": 1, **{f"word{n}": n for n in range(2, self.vocab - 3)}}
        return {
            "llm": {
                "d_model": self.d_model, "n_heads": self.llm_heads, "mlp_ratio": self.mlp_ratio,
                "n_layers_in_mpt_file": self.mpt_layers, "vocab_size": self.vocab,
                "attn_qk_ln": self.qk_norm, "alibi_bias_max": 8, "layer_norm_eps": 1e-5,
            },
            "cross_attn_every_n_layers": self.cross_every,
            "cross_attention": {"dim_head": self.cross_dim, "heads": self.cross_heads,
                                "ff_mult": 4},
            "perceiver": {"depth": self.perceiver_depth, "dim_head": self.cross_dim,
                          "heads": self.cross_heads, "num_latents": self.latents, "ff_mult": 4},
            "vision": {"image_size": self.image, "patch_size": self.patch, "width": self.vision,
                       "layers": self.vision_layers, "head_width": self.vision_head,
                       "mlp_ratio": 4.0},
            "head": {"lstm_hidden": self.lstm, "mlp_hidden": list(self.mlp_widths)},
            "special_tokens": self.specials,
            "vocabulary": {**self.specials, **words},
            "max_prompt_tokens": 32,
        }

    def values(self) -> dict[str, Any]:
        """What the checkpoint holds beside its tensors."""
        return {
            "epoch": 3, "head_type": "deterministic", "early_exit_layer": self.layers - 1,
            "multi_exit": True, "share_exit": False, "exit_interval": self.interval,
            "exit_dropout": self.dropout, "lstm_dropout": 0.3, "dropout_mode": self.dropout_mode,
            "mlp_layernorm": self.mlp_norm, "lstm_layernorm": self.lstm_norm,
            "mlp_num_hidden_layers": len(self.mlp_widths), "lstm_num_layers": self.lstm_layers,
            "pooling": "max", "precision": "fp32", "use_extra_exit": True,
        }

    # Names and shapes

    def block(self) -> Shapes:
        d, ff = self.d_model, self.mlp_ratio * self.d_model
        one, two, up, down = (
            ("norm_1", "norm_2", "ffn.up_proj", "ffn.down_proj") if self.seven_b_names
            else ("ln_1", "ln_2", "mlp.mlp_up", "mlp.mlp_down")
        )
        norms = {"attn.q_ln": (d,), "attn.k_ln": (d,)} if self.qk_norm else {}
        shapes = {one: (d,), "attn.Wqkv": (3 * d, d), **norms, "attn.out_proj": (d, d), two: (d,),
                  up: (ff, d), down: (d, ff)}
        return {f"{name}.weight": shape for name, shape in shapes.items()}

    def gated(self) -> Shapes:
        d, inner = self.d_model, self.cross_heads * self.cross_dim
        return {
            "attn_gate": (1,), "ff_gate": (1,), "attn.norm.weight": (d,), "attn.norm.bias": (d,),
            "attn.to_q.weight": (inner, d), "attn.to_kv.weight": (2 * inner, self.vision),
            "attn.to_out.weight": (d, inner), **self._feed_forward("ff", d),
        }

    def has_cross_attention(self, layer: int) -> bool:
        return (layer + 1) % self.cross_every == 0

    def perceiver(self) -> Shapes:
        w, inner = self.vision, self.cross_heads * self.cross_dim
        shapes: Shapes = {"latents": (self.latents, w), "norm.weight": (w,), "norm.bias": (w,)}
        for n in range(self.perceiver_depth):
            attention = f"layers.{n}.0"
            for norm in ("norm_media", "norm_latents"):
                shapes |= {f"{attention}.{norm}.weight": (w,), f"{attention}.{norm}.bias": (w,)}
            shapes |= {f"{attention}.to_q.weight": (inner, w),
                       f"{attention}.to_kv.weight": (2 * inner, w),
                       f"{attention}.to_out.weight": (w, inner)}
            shapes |= self._feed_forward(f"layers.{n}.1", w)
        return _prefixed("perceiver", shapes)

    def head(self) -> Shapes:
        shapes: Shapes = {}
        for n in range(self.lstm_layers):
            width = self.d_model if n == 0 else self.lstm
            rows = 4 * self.lstm
            cell = {"weight_ih": (rows, width), "weight_hh": (rows, self.lstm), "bias_ih": (rows,),
                    "bias_hh": (rows,)}
            if self.lstm_norm:
                shapes |= {f"rnn.layers.{3 * n}.{name}_l0": shape for name, shape in cell.items()}
                shapes |= {f"rnn.layers.{3 * n + 1}.weight": (self.lstm,),
                           f"rnn.layers.{3 * n + 1}.bias": (self.lstm,)}
            else:
                shapes |= {f"rnn.{name}_l{n}": shape for name, shape in cell.items()}
        for mlp, outputs in (("actions", 6), ("gripper", 1)):
            shapes |= _prefixed(f"{mlp}.mlp", self._mlp(outputs))
        return shapes

    def _mlp(self, outputs: int) -> Shapes:
        """The sequence that the authors build for every kind of dropout, with its gaps."""
        layers: list[str] = []
        hidden = len(self.mlp_widths)
        for _ in range(hidden):
            before = self.dropout_mode == "layerwise" or (
                self.dropout_mode == "wo_last" and (self.mlp_norm or self.dropout > 0)
            )
            identity = self.dropout_mode != "wo_last"
            layers += ["dropout"] * before + ["linear"]
            layers += ["norm"] if self.mlp_norm else ["identity"] * identity
            layers += ["relu"]
        layers += ["dropout"] * (self.dropout_mode != "wo_last") + ["linear", "squash"]
        widths = [self.lstm, *self.mlp_widths, outputs]
        shapes: Shapes = {}
        linear = 0
        for index, kind in enumerate(layers):
            if kind == "linear":
                shapes[f"{index}.weight"] = (widths[linear + 1], widths[linear])
                linear += 1
            if kind in ("linear", "norm"):
                shapes[f"{index}.bias"] = (widths[linear],)
            if kind == "norm":
                shapes[f"{index}.weight"] = (widths[linear],)
        return shapes

    def _feed_forward(self, name: str, width: int) -> Shapes:
        return {f"{name}.0.weight": (width,), f"{name}.0.bias": (width,),
                f"{name}.1.weight": (4 * width, width), f"{name}.3.weight": (width, 4 * width)}

    def deer(self, blocks: bool = True) -> Shapes:
        """Without the aliases of the gated blocks and without prefix."""
        shapes = {**self.perceiver(),
                  "lang_encoder.transformer.wte.weight": (self.vocab, self.d_model)}
        for n in range(self.layers):
            if self.has_cross_attention(n):
                name = f"lang_encoder.transformer.blocks.{n}.gated_cross_attn_layer"
                shapes |= _prefixed(name, self.gated())
            if blocks:
                shapes |= _prefixed(f"lang_encoder.old_decoder_blocks.{n}", self.block())
        inner = range(self.interval - 1, self.layers - 1, self.interval)
        for head in ("lm_head", "extra_exit", *(f"lm_exit_modules.{i}" for i in range(len(inner)))):
            shapes |= _prefixed(head, self.head())
        return shapes

    def mpt(self) -> Shapes:
        norm = "norm_f" if self.seven_b_names else "ln_f"
        shapes = {"transformer.wte.weight": (self.mpt_vocab, self.d_model),
                  f"transformer.{norm}.weight": (self.d_model,)}
        for n in range(self.mpt_layers):
            shapes |= _prefixed(f"transformer.blocks.{n}", self.block())
        return shapes

    def openflamingo(self) -> Shapes:
        shapes = {**self.perceiver(),
                  "lang_encoder.transformer.wte.weight": (self.vocab, self.d_model)}
        for n in range(self.mpt_layers):
            if self.has_cross_attention(n):
                name = f"lang_encoder.gated_cross_attn_layers.{n}"
                shapes |= _prefixed(name, self.gated())
        return shapes

    def open_clip(self) -> Shapes:
        w, tokens = self.vision, (self.image // self.patch) ** 2 + 1
        norm = {"weight": (w,), "bias": (w,)}
        shapes = {"class_embedding": (w,), "positional_embedding": (tokens, w), "proj": (w, 5),
                  "conv1.weight": (w, 3, self.patch, self.patch),
                  **_prefixed("ln_pre", norm), **_prefixed("ln_post", norm)}
        for n in range(self.vision_layers):
            shapes |= _prefixed(f"transformer.resblocks.{n}", {
                **_prefixed("ln_1", norm), **_prefixed("ln_2", norm),
                "attn.in_proj_weight": (3 * w, w), "attn.in_proj_bias": (3 * w,),
                **_linear("attn.out_proj", w, w), **_linear("mlp.c_fc", w, 4 * w),
                **_linear("mlp.c_proj", 4 * w, w),
            })
        text = {"logit_scale": (), "text_projection": (4, 5), "token_embedding.weight": (7, 4),
                "positional_embedding": (3, 4), "ln_final.weight": (4,), "ln_final.bias": (4,),
                "transformer.resblocks.0.ln_1.weight": (4,)}
        return {**_prefixed("visual", shapes), **text}

    def transformers_clip(self) -> Shapes:
        w, tokens = self.vision, (self.image // self.patch) ** 2 + 1
        norm = {"weight": (w,), "bias": (w,)}
        shapes = {"embeddings.class_embedding": (w,),
                  "embeddings.position_embedding.weight": (tokens, w),
                  "embeddings.patch_embedding.weight": (w, 3, self.patch, self.patch),
                  **_prefixed("pre_layrnorm", norm), **_prefixed("post_layernorm", norm)}
        for n in range(self.vision_layers):
            shapes |= _prefixed(f"encoder.layers.{n}", {
                **_prefixed("layer_norm1", norm), **_prefixed("layer_norm2", norm),
                **{k: v for p in "qkv" for k, v in _linear(f"self_attn.{p}_proj", w, w).items()},
                **_linear("self_attn.out_proj", w, w), **_linear("mlp.fc1", w, 4 * w),
                **_linear("mlp.fc2", 4 * w, w),
            })
        text = {"logit_scale": (), "visual_projection.weight": (5, w),
                "text_projection.weight": (5, 4),
                "text_model.embeddings.token_embedding.weight": (7, 4)}
        return {**_prefixed("vision_model", shapes), **text}


PUBLISHED_3B = Official(
    d_model=2048, llm_heads=16, layers=12, mpt_layers=24, vocab=50280, mpt_vocab=50368,
    cross_heads=8, cross_dim=64, perceiver_depth=6, latents=64, image=224, patch=14, vision=1024,
    vision_layers=24, vision_head=64, lstm=1024, mlp_widths=(1024, 512),
)
PUBLISHED_9B = Official(
    d_model=4096, llm_heads=32, layers=16, mpt_layers=32, vocab=50280, mpt_vocab=50432,
    qk_norm=False, seven_b_names=True, cross_every=4, cross_heads=8, cross_dim=64,
    perceiver_depth=6, latents=64, image=224, patch=14, vision=1024, vision_layers=24,
    vision_head=64, lstm=1024, mlp_widths=(1024, 512),
)
TINY_9B = Official(layers=8, mpt_layers=10, qk_norm=False, seven_b_names=True, cross_every=4)


def _prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {f"{prefix}.{name}": shape for name, shape in shapes.items()}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def deer_checkpoint(official: Official, seed: int = 0, blocks: bool = True) -> dict[str, Any]:
    """A whole checkpoint: values, optimiser, and tensors with the prefix and the aliases."""
    tensors = random_tensors(official.deer(blocks), seed)
    for name in list(tensors):
        if ".gated_cross_attn_layer." in name:
            alias = name.replace("transformer.blocks.", "gated_cross_attn_layers.")
            tensors[alias.replace(".gated_cross_attn_layer.", ".")] = tensors[name]
    return {
        **official.values(),
        "model_state_dict": {f"module.{name}": tensor for name, tensor in tensors.items()},
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        "lr_scheduler_state_dict": {"last_epoch": 3},
    }


def write_files(folder: Path, official: Official, **checkpoint: Any) -> dict[str, Any]:
    """A DeeR checkpoint and CLIP's weights in `folder`: the arguments of `convert_official`."""
    torch.save(deer_checkpoint(official, **checkpoint), folder / "deer.pth")
    save_file(random_tensors(official.open_clip(), 1), folder / "clip.safetensors")
    return {"deer": folder / "deer.pth", "clip": folder / "clip.safetensors",
            "config": official.description()}


def write_hollow(file: Path, shapes: Shapes) -> Path:
    """A safetensors file of zeros that takes no room on the disk."""
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        stream.truncate(8 + len(text) + end)
    return file
