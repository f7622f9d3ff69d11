"""The published formulation of T-LoRA (arXiv 2507.05964), written out to be measured beside ours.

Attention is computed with explicit scores, each layer's update as one or two full products, and the
mask multiplies what lies in the middle. What the published trainer does around it (encoding at
every step, collecting garbage) is left out, so this is its best case.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tlora_cli import RankSchedule
from tlora_cli.families import FAMILIES

LAYERS = {"to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "out"}


class Update(nn.Module):
    """B M A x, or the difference B S M A x - B0 S0 M A0 x of two products."""

    def __init__(self, layer: nn.Linear, rank: int, ortho: bool) -> None:
        super().__init__()
        device = layer.weight.device
        self.A = nn.Parameter(torch.randn(rank, layer.in_features, device=device) / rank)
        self.B = nn.Parameter(torch.zeros(layer.out_features, rank, device=device))
        self.ortho = ortho
        if ortho:
            with torch.no_grad():
                self.B.normal_(std=layer.out_features**-0.5)
            self.S = nn.Parameter(torch.ones(1, rank, device=device))
            for name in ("A", "B", "S"):
                self.register_buffer(f"{name}0", getattr(self, name).detach().clone())

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Return the update for x (B, N, in) under the mask (1, R)."""
        a, b, mask = self.A.to(x), self.B.to(x), mask.to(x)
        if not self.ortho:
            return F.linear(F.linear(x, a) * mask, b)
        now = F.linear(F.linear(x, a) * self.S.to(x) * mask, b)
        a0, b0, s0 = (getattr(self, f"{name}0").to(x) for name in ("A", "B", "S"))
        return now - F.linear(F.linear(x, a0) * s0 * mask, b0)


class Attention(nn.Module):
    """An attention processor with updates and explicit scores; for SDXL's UNet."""

    def __init__(self, attention: Any, rank: int, ortho: bool, mask: list[Tensor]) -> None:
        super().__init__()
        for name, short in LAYERS.items():
            setattr(self, short, Update(attention.get_submodule(name), rank, ortho))
        self.mask = mask

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        **_: Any,
    ) -> Tensor:
        """Return what the attention layer gives for hidden states (B, N, C)."""
        [mask] = self.mask
        text = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query = attn.to_q(hidden_states) + self.q(hidden_states, mask)
        key = attn.to_k(text) + self.k(text, mask)
        value = attn.to_v(text) + self.v(text, mask)
        query, key, value = (attn.head_to_batch_dim(part) for part in (query, key, value))
        mixed = torch.bmm(attn.get_attention_scores(query, key), value)
        mixed = attn.batch_to_head_dim(mixed)
        mixed = attn.to_out[0](mixed) + self.out(mixed, mask)
        return attn.to_out[1](mixed)


class Published:
    """The published formulation on a denoiser.

    Args:
        family: `sdxl`; with `flux` the updates are hooks, and attention is as in the denoiser.
        denoiser: the denoiser, to be changed.
        rank: R; the least rank is half of it.
        ortho: which parametrization.
    """

    def __init__(self, family: str, denoiser: Any, rank: int, ortho: bool) -> None:
        self.schedule = RankSchedule(rank, rank // 2)
        self._mask: list[Tensor] = []
        self.updates: list[nn.Module] = []
        if family == "sdxl":
            processors = {
                name: Attention(
                    denoiser.get_submodule(name.removesuffix(".processor")), rank, ortho, self._mask
                )
                for name in denoiser.attn_processors
            }
            denoiser.set_attn_processor(processors)
            self.updates.extend(processors.values())
            return
        for layer in FAMILIES[family].target_layers(denoiser).values():
            update = Update(layer, rank, ortho)
            layer.register_forward_hook(
                lambda _, inputs, output, update=update: output + update(inputs[0], self._mask[0])
            )
            self.updates.append(update)

    def parameters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        return [parameter for update in self.updates for parameter in update.parameters()]

    def before_call(self, timesteps: Tensor) -> None:
        """Make the mask of the first timestep, which the published code uses for all samples."""
        self._mask[:] = [self.schedule.mask(timesteps[:1])]
