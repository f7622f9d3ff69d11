"""The gate: how often a base draws what it is asked.

Of seen and of held-out combinations; and composed, where marking and feature are asked for, too.
"""

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

REQUIRED = {"seen": 0.95, "held-out": 0.92, "composed": 0.90, "composed held-out": 0.85}
"""Kind of prompts -> least share of pictures on which all that they ask for is right."""


_RIGHT, _WRONG, _UNASKED = "#22662f", "#c02020", "#808080"


@dataclass(frozen=True)
class Gate:
    """Scores of a base by kind of prompts.

    Attributes:
        base: its name.
        settings: how the pictures were drawn.
        whole: kind -> TS*; of composed prompts with what is private.
        parts: kind -> factor -> share of pictures on which it is right.
        drawn: kind -> its pictures.
    """

    base: str
    settings: str
    whole: dict[str, scores.Rate]
    parts: dict[str, dict[str, scores.Rate]]
    drawn: dict[str, list[Drawn]]

    def sheet(self, count: int = 40) -> Image.Image:
        """Return the first pictures with the judge's reading under each, half of them composed.

        What differs from the prompt is red; what was not asked for is gray.
        """
        shown = [*self.drawn["held-out"][: count // 2], *self.drawn["composed"][: count // 2]]
        items = []
        for one in shown:
            texts = []
            for name in (*FACTORS, *PRIVATE):
                value, asked = one.reading[name], one.task.asked.get(name)
                right = _RIGHT if value == asked else _WRONG
                texts.append((value, _UNASKED if asked is None else right))
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
                    "right": round(rate.value, 4),
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
                f"  {kind:17}  {rate}  ({rate.count} pictures; required {REQUIRED[kind]:.2f})"
            )
            parts = [f"{name} {part.value:.3f}" for name, part in self.parts[kind].items()]
            lines.append(f"      {'  '.join(parts[:5])}")
            if parts[5:]:
                lines.append(f"      {'  '.join(parts[5:])}")
        lines.append("passed" if self.passed else "not passed")
        return "\n".join(lines)


def measure(base: str, count: int, seed: int = 0) -> Gate:
    """Draw `count` pictures of each kind with the base's default settings and score them.

    Raises:
        UserError: if a model's files are damaged.
    """
    studio = Studio(base, choose_device("auto", "fp32", None))
    settings = studio.settings
    whole, parts, pictures = {}, {}, {}
    for kind in REQUIRED:
        tasks = base_tasks(count, "held-out" in kind, seed, composed="composed" in kind)
        pictures[kind] = drawn = studio.draw(tasks)
        whole[kind] = prompted(drawn)
        parts[kind] = scores.by_attribute(
            [one.reading for one in drawn], [one.task.asked for one in drawn]
        )
    about = f"{settings.steps} steps, guidance {settings.guidance}"
    return Gate(base, about, whole, parts, pictures)
