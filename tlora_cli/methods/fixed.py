"""A pair of factors as read from a file, not trained."""

from __future__ import annotations

from torch import Tensor

from tlora_cli.methods.base import Parametrization, Products


class Fixed(Parametrization):
    """Holds down (copies * R, in) and up (out, copies * R)."""

    parts = ("down", "up")
    down: Tensor
    up: Tensor

    def __init__(self, down: Tensor, up: Tensor, copies: int) -> None:
        super().__init__(rank=down.shape[0] // copies)
        self.copies = copies
        self.register_buffer("down", down)
        self.register_buffer("up", up)

    @staticmethod
    def combine(*parts: Tensor) -> Products:
        """Return the pair."""
        down, up = parts
        return Products(down, up)
