"""From pictures to visual tokens: two kinds of tower behind one interface, and the resampler.

A tower takes (N, cameras, 3, S, S) float pictures, normalised as the model's preprocessing says,
and gives (N, cameras, P, W) tokens.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deer_ros.model.sizes import GROUPS, ResamplerConfig, VisionConfig

CAMERAS = 2


def build_tower(config: VisionConfig) -> nn.Module:
    """The tower that `config.type` names."""
    return ClipTower(config) if config.type == "clip" else ConvTower(config)


class ClipTower(nn.Module):
    """CLIP's vision transformer, one for all cameras.

    Its answer is the patch tokens after the last block, without the class token and without
    `post_layernorm`: what the original's `output_tokens=True` gave in open_clip 2.20.0.
    """

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        # Takes longer to import than all else together, and small models do without.
        from transformers import CLIPVisionConfig, CLIPVisionModel

        self.clip = CLIPVisionModel(
            CLIPVisionConfig(
                hidden_size=config.width,
                intermediate_size=int(config.width * config.mlp_ratio),
                num_hidden_layers=config.layers,
                num_attention_heads=config.heads,
                image_size=config.image_size,
                patch_size=config.patch_size,
                hidden_act="quick_gelu",
            )
        )
        self.clip.post_layernorm = nn.Identity()

    def forward(self, pictures: Tensor) -> Tensor:
        batch, cameras = pictures.shape[:2]
        tokens = self.clip(pictures.flatten(0, 1)).last_hidden_state[:, 1:]
        return tokens.unflatten(0, (batch, cameras))


class ConvTower(nn.Module):
    """A few convolutions per camera and a learned position, for models trained from nothing."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.stacks = nn.ModuleList(_convolutions(config) for _ in range(CAMERAS))
        self.positions = nn.Parameter(torch.randn(CAMERAS, config.tokens, config.width) * 0.02)

    def forward(self, pictures: Tensor) -> Tensor:
        maps = [stack(pictures[:, camera]) for camera, stack in enumerate(self.stacks)]
        tokens = torch.stack([m.flatten(2).transpose(1, 2) for m in maps], dim=1)
        return tokens + self.positions


def _convolutions(config: VisionConfig) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels_in = 3
    for index, (channels, stride) in enumerate(zip(config.channels, config.strides)):
        kernel = 5 if index == 0 else 3
        layers += [
            nn.Conv2d(channels_in, channels, kernel, stride, padding=kernel // 2, bias=False),
            nn.GroupNorm(GROUPS, channels),
            nn.SiLU(),
        ]
        channels_in = channels
    return nn.Sequential(*layers)


class Resampler(nn.Module):
    """Perceiver resampler (Alayrac et al. 2022): tokens (N, P, W) -> latents (N, n, W)."""

    def __init__(self, config: ResamplerConfig, width: int) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(config.latents, width))
        self.layers = nn.ModuleList(ResamplerLayer(config, width) for _ in range(config.depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        for layer in self.layers:
            latents = layer(latents, tokens)
        return self.norm(latents)


class ResamplerLayer(nn.Module):
    """Latents read the tokens and themselves, then a feed-forward."""

    def __init__(self, config: ResamplerConfig, width: int) -> None:
        super().__init__()
        inner = config.heads * config.head_dim
        self.heads = config.heads
        self.norm_tokens = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_kv = nn.Linear(width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, width, bias=False)
        self.feed_forward = FeedForward(width, config.mlp_ratio)

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        x = self.norm_latents(latents)
        keys, values = self.to_kv(torch.cat([self.norm_tokens(tokens), x], dim=1)).chunk(2, dim=-1)
        latents = latents + self.to_out(attend(self.to_q(x), keys, values, self.heads))
        return latents + self.feed_forward(latents)


class FeedForward(nn.Module):
    """Layer norm, widen, exact GELU, narrow; no biases in the products."""

    def __init__(self, width: int, ratio: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, ratio * width, bias=False)
        self.down = nn.Linear(ratio * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(nn.functional.gelu(self.up(self.norm(x))))


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
    bias: Tensor | None = None,
    allowed: Tensor | None = None,
) -> Tensor:
    """Multi-head attention over (N, L, heads * dim) tensors, scores scaled by dim^-0.5.

    `bias` is added to the scores, `allowed` (boolean) forbids keys; both broadcast to
    (N, heads, queries, keys). Written out, as at these lengths it is faster than the fused
    function and its products are counted by torch's counter.
    """
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (queries, keys, values))
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    if allowed is not None:
        scores = scores.masked_fill(~allowed, torch.finfo(scores.dtype).min)
    return (scores.softmax(dim=-1) @ v).transpose(1, 2).flatten(2)
