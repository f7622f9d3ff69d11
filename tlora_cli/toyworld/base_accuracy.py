"""The gate: how often a base draws what it is asked, on seen and on held-out combinations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image

from tlora_cli.foundation.devices import choose_device
from tlora_cli.toyworld import scores
from tlora_cli.toyworld.contact_sheet import labelled_sheet
from tlora_cli.toyworld.factors import FACTORS, PRIVATE
from tlora_cli.toyworld.studio import Drawn, Studio, prompted
from tlora_cli.toyworld.suites import base_tasks

REQUIRED = {"seen": 0.95, "held-out": 0.90}
"""Least TS* before any claim is made with a base."""


_RIGHT, _WRONG, _PRIVATE = "#22662f", "#c02020", "#808080"


@dataclass(frozen=True)
class Gate:
    """Scores of a base by kind of combination, `seen` and `held-out`.

    Attributes:
        base: its name.
        settings: how the pictures were drawn.
        whole: kind -> TS*.
        parts: kind -> factor -> share of pictures on which it is right.
        drawn: the pictures of held-out combinations.
    """

    base: str
    settings: str
    whole: dict[str, scores.Rate]
    parts: dict[str, dict[str, scores.Rate]]
    drawn: list[Drawn]

    def sheet(self, count: int = 40) -> Image.Image:
        """Return the first pictures of held-out combinations with the judge's reading under each.

        What differs from the prompt is red; private attributes, which were not asked for, are gray.
        """
        items = []
        for one in self.drawn[:count]:
            texts = [
                (value, _RIGHT if one.task.asked[name] == value else _WRONG)
                for name, value in one.reading.items()
                if name in FACTORS
            ]
            texts += [(one.reading[name], _PRIVATE) for name in PRIVATE]
            items.append((one.picture, texts))
        return labelled_sheet(items, columns=8)

    @property
    def passed(self) -> bool:
        """Whether every kind reaches what is required."""
        return all(self.whole[kind].value >= least for kind, least in REQUIRED.items())

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "base": self.base,
            "settings": self.settings,
            "passed": self.passed,
            **{
                kind: {
                    "pictures": rate.count,
                    "TS*": round(rate.value, 4),
                    "interval": [round(end, 4) for end in rate.interval],
                    **{name: round(part.value, 4) for name, part in self.parts[kind].items()},
                }
                for kind, rate in self.whole.items()
            },
        }

    def __str__(self) -> str:
        """Return a table."""
        lines = [f"{self.base}, {self.settings}"]
        for kind, rate in self.whole.items():
            lines.append(
                f"  {kind:8}  TS* {rate}  ({rate.count} pictures; required {REQUIRED[kind]:.2f})"
            )
            parts = "  ".join(f"{name} {part.value:.3f}" for name, part in self.parts[kind].items())
            lines.append(f"            {parts}")
        lines.append("passed" if self.passed else "not passed")
        return "\n".join(lines)


def measure(base: str, count: int, seed: int = 0) -> Gate:
    """Draw `count` pictures of each kind with the base's default settings and score them.

    Raises:
        UserError: if a model's files are damaged.
    """
    studio = Studio(base, choose_device("auto", "fp32", None))
    settings = studio.settings
    whole, parts = {}, {}
    for kind in REQUIRED:
        drawn = studio.draw(base_tasks(count, kind == "held-out", seed))
        whole[kind] = prompted(drawn)
        parts[kind] = scores.by_attribute(
            [one.reading for one in drawn], [one.task.asked for one in drawn]
        )
    about = f"{settings.steps} steps, guidance {settings.guidance}"
    return Gate(base, about, whole, parts, drawn)
