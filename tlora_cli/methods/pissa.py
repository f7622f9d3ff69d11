"""PiSSA: LoRA that trains the principal part of the weights (Meng et al. 2024)."""

from __future__ import annotations

from torch import Tensor, nn

from tlora_cli.methods.base import Parametrization, Products


class PiSSA(Parametrization):
    """W_res + B A with A = sqrt(S_r) V_r^T and B = U_r sqrt(S_r), W_res = W - B0 A0.

    Trains A (R, in) and B (out, R); A0 and B0 are frozen copies of the start, so the base's weights
    stay as they are.
    """

    copies = 2
    parts = ("A", "B", "A0", "B0")
    A0: Tensor
    B0: Tensor

    def __init__(self, down: Tensor, up: Tensor) -> None:
        super().__init__(rank=down.shape[0])
        self.A, self.B = nn.Parameter(down.clone()), nn.Parameter(up.clone())
        self.register_buffer("A0", down)
        self.register_buffer("B0", up)

    @classmethod
    def start(cls, triplets: tuple[Tensor, Tensor, Tensor]) -> PiSSA:
        """Start from singular triplets V^T (R, in), S (R,), U (out, R) of the weights."""
        down, scale, up = triplets
        root = scale.sqrt()
        return cls(root[:, None] * down, up * root)

    @staticmethod
    def combine(*parts: Tensor) -> Products:
        """Return B A - B0 A0."""
        a, b, a0, b0 = parts
        return Products(a, b, a0, b0)
