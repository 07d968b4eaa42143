"""The language model: decoder layers with ALiBi, each able to look at the pictures.

The prompt is run once per step; there is no cache of keys and no generation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deer_ros.model.config import LanguageConfig
from deer_ros.model.vision import FeedForward, attend


@dataclass(frozen=True)
class Prompt:
    """What all layers need of one prompt, or a batch of prompts; made once per instruction.

    embedding: (N, L, width). bias: (1, heads, 1, L), ALiBi. allowed: (N, 1, L, L) boolean, keys
    that a token may read. sees_pictures: (N, L, 1), 1 from the `<image>` token on, else 0.
    """

    embedding: Tensor
    bias: Tensor
    allowed: Tensor
    sees_pictures: Tensor

    @property
    def tokens(self) -> int:
        """Length in tokens."""
        return self.embedding.shape[1]


def make_prompt(
    ids: Tensor, embedding: Tensor, config: LanguageConfig, image_token: int, mask: Tensor | None
) -> Prompt:
    """Attention masks of token ids (N, L), of which each row has exactly one `<image>`.

    `mask` (N, L) is 0 at padding, or None where there is none.
    """
    pictures = (ids == image_token).sum(dim=1)
    if not bool((pictures == 1).all()):
        raise ValueError(
            f"a prompt has {pictures.tolist()} <image> tokens (id {image_token}); it needs one."
        )
    length = ids.shape[1]
    allowed = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()[None, None]
    if mask is not None:
        allowed = allowed & mask.bool()[:, None, None, :]
    sees = ((ids == image_token).cumsum(dim=1) > 0).unsqueeze(-1).to(embedding.dtype)
    return Prompt(embedding, alibi(config, length).to(embedding), allowed, sees)


def alibi(config: LanguageConfig, length: int) -> Tensor:
    """ALiBi (Press et al. 2022) as (1, heads, 1, L): slope_h = 2^(-max (h + 1) / heads).

    It depends on the key's position alone, which differs from the relative form by a constant per
    query that softmax removes.
    """
    exponents = torch.arange(1, config.heads + 1) * (config.alibi_bias_max / config.heads)
    distance = torch.arange(1 - length, 1, dtype=torch.float32)
    slopes = 2.0**-exponents
    return slopes[None, :, None, None] * distance[None, None, None, :]


class GatedCrossAttention(nn.Module):
    """Tokens read the visual latents; both residuals pass a gate that starts closed."""

    def __init__(self, config: LanguageConfig, vision_width: int) -> None:
        super().__init__()
        inner = config.cross_attention_heads * config.cross_attention_head_dim
        self.heads = config.cross_attention_heads
        self.norm = nn.LayerNorm(config.width)
        self.to_q = nn.Linear(config.width, inner, bias=False)
        self.to_kv = nn.Linear(vision_width, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, config.width, bias=False)
        self.feed_forward = FeedForward(config.width, config.cross_attention_mlp_ratio)
        self.attention_gate = nn.Parameter(torch.zeros(1))
        self.feed_forward_gate = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, latents: Tensor, prompt: Prompt) -> Tensor:
        keys, values = self.to_kv(latents).chunk(2, dim=-1)
        seen = self.to_out(attend(self.to_q(self.norm(x)), keys, values, self.heads))
        x = x + self.attention_gate.tanh() * seen * prompt.sees_pictures
        return x + self.feed_forward_gate.tanh() * self.feed_forward(x)


class DecoderBlock(nn.Module):
    """A pre-norm transformer block without biases, with ALiBi and, if asked, normed q and k."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        width, eps = config.width, config.layer_norm_eps

        def norm() -> nn.LayerNorm:
            return nn.LayerNorm(width, eps=eps, bias=False)

        self.heads = config.heads
        self.norm_1 = norm()
        self.to_qkv = nn.Linear(width, 3 * width, bias=False)
        self.norm_q = norm() if config.qk_layer_norm else nn.Identity()
        self.norm_k = norm() if config.qk_layer_norm else nn.Identity()
        self.to_out = nn.Linear(width, width, bias=False)
        self.norm_2 = norm()
        self.up = nn.Linear(width, config.mlp_ratio * width, bias=False)
        self.down = nn.Linear(config.mlp_ratio * width, width, bias=False)

    def forward(self, x: Tensor, prompt: Prompt) -> Tensor:
        q, k, v = self.to_qkv(self.norm_1(x)).chunk(3, dim=-1)
        # The norms of q and k run over all heads at once, before the split.
        q, k = self.norm_q(q), self.norm_k(k)
        x = x + self.to_out(attend(q, k, v, self.heads, prompt.bias, prompt.allowed))
        return x + self.down(nn.functional.gelu(self.up(self.norm_2(x))))


class DecoderLayer(nn.Module):
    """One layer as this project counts them: gated cross-attention, if it has one, and a block."""

    def __init__(self, config: LanguageConfig, vision_width: int, layer: int) -> None:
        super().__init__()
        has = config.has_cross_attention(layer)
        self.cross_attention = GatedCrossAttention(config, vision_width) if has else None
        self.block = DecoderBlock(config)

    def forward(self, x: Tensor, latents: Tensor, prompt: Prompt) -> Tensor:
        if self.cross_attention is not None:
            x = self.cross_attention(x, latents, prompt)
        return self.block(x, prompt)
