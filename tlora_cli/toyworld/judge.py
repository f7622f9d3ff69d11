"""The judge: a small network that reads every attribute of a picture.

It reads drawings rightly (its card says how often), so on generated pictures it stands in for a
person who looks at each one and writes down what is there. It also knows pictures that nobody can
read, and then says so of every attribute, so that no score counts them as right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tlora_cli.toyworld.factors import ATTRIBUTES, SIZE

WIDTHS = (32, 64, 96, 128)
"""Channels after each halving: 64 x 64 pixels become 4 x 4 places."""


UNREADABLE = "unreadable"
"""The reading of every attribute of a picture that the judge refuses."""


class Judge(nn.Module):
    """Four strided convolution blocks and one linear head for each attribute.

    Args:
        known: attribute -> its values; the class may also be `UNREADABLE`, the last of its logits.
    """

    def __init__(self, known: Mapping[str, Sequence[str]] = ATTRIBUTES) -> None:
        super().__init__()
        self.known = {name: tuple(values) for name, values in known.items()}
        self.known["class"] = (*self.known["class"], UNREADABLE)
        layers: list[nn.Module] = []
        before = 3
        for width in WIDTHS:
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            before = width
        places = (SIZE >> len(WIDTHS)) ** 2
        layers += [nn.Flatten(), nn.Linear(before * places, 256), nn.SiLU()]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleDict(
            {_key(name): nn.Linear(256, len(values)) for name, values in self.known.items()}
        )

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return attribute -> logits (B, values).

        Args:
            pixels: (B, 3, 64, 64) in [-1, 1].
        """
        found = self.trunk(pixels)
        return {name: self.heads[_key(name)](found) for name in self.known}

    @torch.no_grad()
    def read(self, pixels: Tensor, batch: int = 256) -> list[dict[str, str]]:
        """Return what is on each picture: attribute -> value.

        Args:
            pixels: (B, 3, 64, 64) in [-1, 1].
            batch: pictures to a call.
        """
        readings: list[dict[str, str]] = []
        for part in torch.split(pixels, batch):
            best = {name: logits.argmax(1).tolist() for name, logits in self(part).items()}
            readings += [self._named({n: best[n][i] for n in best}) for i in range(len(part))]
        return readings

    def _named(self, numbers: Mapping[str, int]) -> dict[str, str]:
        reading = {name: self.known[name][number] for name, number in numbers.items()}
        if reading.get("class") == UNREADABLE:
            return dict.fromkeys(reading, UNREADABLE)
        return reading


def _key(name: str) -> str:
    # "class" and others can't be module names of every kind; a prefix keeps them apart.
    return f"{name}_head"
