"""W - B0 S0 A0 + B S A: LoRA from orthogonal factors (T-LoRA, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tlora_cli.methods.base import Parametrization, Products


class Ortho(Parametrization):
    """Trains A (R, in), S (R,) and B (out, R); A0, S0, B0 are frozen copies of the start."""

    copies = 2
    parts = ("A", "S", "B", "A0", "S0", "B0")

    def __init__(
        self, start: tuple[Tensor, Tensor, Tensor], now: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> None:
        """Take the start (A0, S0, B0) and, if training went on since, the present (A, S, B)."""
        super().__init__(rank=start[0].shape[0])
        down, scale, up = now or tuple(tensor.clone() for tensor in start)
        self.A, self.S, self.B = nn.Parameter(down), nn.Parameter(scale), nn.Parameter(up)
        for name, tensor in zip(("A0", "S0", "B0"), start, strict=True):
            self.register_buffer(name, tensor)

    A0: Tensor
    S0: Tensor
    B0: Tensor

    @staticmethod
    def combine(*parts: Tensor) -> Products:
        """Return B (S A) - B0 (S0 A0)."""
        a, s, b, a0, s0, b0 = parts
        return Products(s.unsqueeze(-1) * a, b, s0.unsqueeze(-1) * a0, b0)

    @classmethod
    def from_factors(cls, down: Tensor, up: Tensor) -> Ortho:
        """Rebuild trainable factors from a saved pair; the function is the same.

        The pair holds S A, S0 A0 and both B, but not S apart from A: each row is split into its
        length (S) and direction (A), which is exact for the frozen start, whose rows are unit.
        """
        rank = down.shape[0] // 2
        scaled, moved = down[:rank].float(), down[rank:].float()
        start_down, start_scale = _split_rows(scaled - moved)
        now_down, now_scale = _split_rows(scaled)
        start_up = up[:, rank:].float()
        return cls(
            (start_down, start_scale, start_up.clone()),
            (now_down, now_scale, up[:, :rank].float() + start_up),
        )


def _split_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    length = rows.norm(dim=1)
    return rows / length.clamp(min=torch.finfo(rows.dtype).tiny).unsqueeze(1), length
