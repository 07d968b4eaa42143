"""Layers and heads learn the demonstrated actions, every exit at once (the paper's section 3.3)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from deer_ros.budget.cadence import Cadence
from deer_ros.model.action_head import ActionHead, HeadOutput
from deer_ros.model.deer import DeerModel
from deer_ros.model.language import Prompt
from deer_ros.training.config import PolicyPhase
from deer_ros.training.losses import action_loss, gather_exits, meaning_loss, split
from deer_ros.training.trainer import BETAS
from deer_ros.training.windows import Batch


class MultiExitTraining(nn.Module):
    """The model, and one auxiliary head per exit, used only in training.

    The auxiliary heads of a model that knows something already (`pretrained`) start as copies of
    its shared head, which has learned every exit; model directories do not hold the official ones.
    """

    def __init__(
        self, model: DeerModel, phase: PolicyPhase, pretrained: bool = False,
        read_outs: nn.ModuleList | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.read_outs = read_outs
        self.phase = phase
        exits, width = model.config.exit_layers, model.config.language.width
        plain = dataclasses.replace(
            model.config.head, gate_width=None, layer_projections=False
        )
        self.auxiliary = nn.ModuleList(
            ActionHead(plain, width, exits) for _ in (exits if phase.auxiliary_weight else ())
        )
        if pretrained:
            shared = model.head.state_dict()
            for head in self.auxiliary:
                head.load_state_dict({name: shared[name] for name in head.state_dict()})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Losses of a batch, as `losses` gives them, times the batch's share."""
        features = features_of(self.model, batch)
        losses = self.losses(features, batch.actions, batch.samplings, batch.valid)
        if self.read_outs is not None:
            meaning = meaning_loss(
                self.read_outs, features[:, batch.valid], batch.meant[batch.valid]
            )
            losses["meaning"] = self.phase.meaning_weight * meaning
        return {name: batch.share * loss for name, loss in losses.items()}

    def answers(
        self, features: Tensor, samplings: Sequence[np.ndarray]
    ) -> list[tuple[str, float, HeadOutput]]:
        """Every head's answers to features (E, N, T, d): what they are called, weight, output.

        The shared head along each of the `samplings` (N, T) and, if the phase says so, along every
        exit taken constantly, and as the model's cadence takes it where it is decided for; then the
        auxiliary heads, each at its exit.
        """
        phase = self.phase
        device = features.device
        paths = [gather_exits(features, torch.from_numpy(e).to(device)) for e in samplings]
        kinds = [("shared", 1.0)] * len(paths)
        if phase.constant_exit_weight:
            decided = self._decided(features)
            kinds += [("constant", phase.constant_exit_weight)] * len(features)
            kinds += [("decided", phase.constant_exit_weight)] * len(decided)
            paths += [*features, *decided]
        shared = split(self.model.head(torch.cat(paths)), len(paths))
        answers = [(*kind, output) for kind, output in zip(kinds, shared)]
        if phase.auxiliary_weight:
            heads = zip(self.auxiliary, features)
            answers += [("auxiliary", phase.auxiliary_weight, head(f)) for head, f in heads]
        return answers

    def _shallower_between(self) -> list[int]:
        """Exit layers that the model's cadence takes for steps that decide alone."""
        config = self.model.config
        cadence = Cadence.of(config)
        if cadence.steps_per_decision == 1:
            return []
        return [layer for layer in config.exit_layers if cadence.between(layer) != layer]

    def _decided(self, features: Tensor) -> list[Tensor]:
        """Features (N, T, d) along each of these exits, the first step of a window deciding."""
        exits, cadence = self.model.config.exit_layers, Cadence.of(self.model.config)
        steps, paths = np.arange(features.shape[2]), []
        for layer in self._shallower_between():
            taken = np.where(cadence.decides(steps), layer, cadence.between(layer))
            numbers = [exits.index(exit_layer) for exit_layer in taken]
            paths.append(features[numbers, :, steps].transpose(0, 1))
        return paths

    def losses(
        self,
        features: Tensor,
        actions: Tensor,
        samplings: Sequence[np.ndarray],
        valid: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Weighted losses of all heads' answers by name; their sum is minimised.

        features: (E, N, T, d). actions: (N, T, 7). samplings: exit numbers (N, T). valid: (N, T)
        boolean, which steps count; None where all do. Names: `shared_N` along the N-th sampling,
        `constant_L`, `decided_L` and `auxiliary_L` at layer L, each `_pose` and `_gripper`.
        """
        layers = self.model.config.exit_layers
        numbers = {
            "shared": iter(range(1, len(samplings) + 1)),
            "constant": iter(layers),
            "decided": iter(self._shallower_between()),
            "auxiliary": iter(layers),
        }
        losses: dict[str, Tensor] = {}
        for kind, weight, output in self.answers(features, samplings):
            name = f"{kind}_{next(numbers[kind])}"
            pose, gripper = action_loss(output, actions, self.phase.gripper_weight, valid)
            losses[f"{name}_pose"], losses[f"{name}_gripper"] = weight * pose, weight * gripper
        return losses

    def groups(self, parts: Collection[str]) -> list[dict]:
        """Parameter groups of the optimiser for the joint phase; the last one is `head_group`.

        parts: those of the model that learn, besides its heads. Weight decay is where the original
        has it: on the matrices of the gated cross-attention. (There it is also on one norm in each,
        which the rule that picks by name lets through.)
        """
        phase = self.phase
        decayed, plain = [], []
        for name, parameter in self.named_parameters():
            part = _part_of(name)
            if part not in (*parts, "proprioception", "read_outs"):
                continue
            gated = part == "cross_attention" or not phase.decay_gated_only
            (decayed if parameter.ndim >= 2 and gated else plain).append(parameter)
        return [
            self._group(decayed, phase.learning_rate, phase.weight_decay),
            self._group(plain, phase.learning_rate),
            self.head_group(),
        ]

    def head_group(self) -> dict:
        """The heads, shared and auxiliary, without the gate: what learns in the head-only phase."""
        heads = [p for name, p in self.named_parameters() if _part_of(name) == "head"]
        return self._group(heads, self.phase.head_learning_rate)

    def _group(
        self, parameters: list[nn.Parameter], learning_rate: float, weight_decay: float = 0.0
    ) -> dict:
        betas = (BETAS[0], self.phase.adam_beta2)
        return {
            "params": parameters, "lr": learning_rate, "weight_decay": weight_decay, "betas": betas,
        }


def features_of(model: DeerModel, batch: Batch) -> Tensor:
    """Pooled features of every exit: (E, windows, steps, d). Padding of prompts does not count."""
    latents = batch.vision if batch.vision.ndim == 3 else model.see(batch.vision)
    if batch.proprioception is not None:
        latents = model.with_proprioception(latents, batch.proprioception)
    prompt = model.read(batch.ids, batch.masks)
    return pooled(model, prompt, latents, batch.masks).unflatten(1, (len(batch.actions), -1))


def pooled(model: DeerModel, prompt: Prompt, latents: Tensor, mask: Tensor | None) -> Tensor:
    """What the head hears at every exit: (E, N, d).

    mask: (N, L), tokens that count; None counts padding too, as the original does.
    """
    hidden = model.hidden_states(prompt, latents)
    exits = model.config.exit_layers
    return torch.stack([model.head.hear(hidden[layer - 1], layer, mask) for layer in exits])


def _part_of(name: str) -> str:
    """Which part of the model a parameter of `MultiExitTraining` belongs to."""
    part, *rest = name.removeprefix("model.").split(".")
    if part == "layers":
        return "cross_attention" if rest[1] == "cross_attention" else "blocks"
    if rest[:1] == ["gate"]:
        return "gate"
    return "head" if part == "auxiliary" else part
