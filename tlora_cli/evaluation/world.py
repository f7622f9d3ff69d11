"""The built-in world's own evaluation: its prompts, and what its judge counts.

The four scores are defined in `toyworld/scores.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tlora_cli import builtin
from tlora_cli.evaluation.asking import Ask
from tlora_cli.formats import AdapterInfo
from tlora_cli.toyworld import reading, scores, studio
from tlora_cli.toyworld.concepts import CONCEPTS, Concept
from tlora_cli.toyworld.factors import Scene
from tlora_cli.toyworld.studio import Drawn
from tlora_cli.toyworld.suites import Task, base_prompt, base_tasks, contexts

CONTEXTS = 50
"""Pictures in other contexts, each of a prompt of its own."""
FREE = 16
"""Pictures of prompts without the concept."""


@dataclass(frozen=True)
class World:
    """A concept of the built-in world that was learned from one of its pictures.

    Attributes:
        concept: what was learned.
        training: the picture it was learned from.
    """

    concept: Concept
    training: Scene

    def tasks(self, base_count: int, seed: int) -> dict[str, list[Task]]:
        """Return the tasks of each group."""
        free = base_tasks(FREE, held_out=False, seed=seed)
        return {
            "base": base_prompt(self.concept, base_count, seed),
            "suite": contexts(self.concept, CONTEXTS, self.training, seed),
            "free": free,
            "free_without": free,
        }

    def asks(self, base_count: int, seed: int) -> list[Ask]:
        """Return the pictures of an evaluation, in the order of the tasks."""
        return [
            Ask(group, task.text, task.seed)
            for group, tasks in self.tasks(base_count, seed).items()
            for task in tasks
        ]

    def judge(
        self, pictures: Sequence[Image.Image], base_count: int, seed: int
    ) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Return TS*, ID*, leak and copy, and for each picture what counts of them.

        Args:
            pictures: in the order of `asks`.
            base_count: as for `asks`.
            seed: as for `asks`.
        """
        tasks = [task for part in self.tasks(base_count, seed).values() for task in part]
        readings = reading.read(pictures)
        drawn = [Drawn(*one) for one in zip(tasks, pictures, readings, strict=True)]
        plain, placed = drawn[:base_count], drawn[base_count : base_count + CONTEXTS]
        summary = {
            "TS*": studio.prompted(placed).value,
            "ID*": studio.identity(placed, self.concept).value,
            "ID* (base prompt)": studio.identity(plain, self.concept).value,
            "leak": studio.leak(placed, self.training).value,
            "copy": studio.copies(placed, self.training).value,
        }
        rows: list[dict[str, float]] = []
        for number, one in enumerate(drawn):
            row = {}
            if number < base_count + CONTEXTS:
                row["ID*"] = float(scores.identity_right(one.reading, self.concept.values))
            if base_count <= number < base_count + CONTEXTS:
                asked = one.task.asked
                row["TS*"] = float(scores.prompted_right(one.reading, asked))
                row["leak"] = float(scores.leaked(one.reading, asked, self.training.values))
            rows.append(row)
        return summary, rows


def world_of(base: str, info: AdapterInfo) -> World | None:
    """Return the concept an adapter of a built-in base has learned, or None if it is another's.

    Of several training pictures the first is the one whose background and position may leak.
    """
    images: Any = info.recipe.get("concept", {}).get("images")
    specs = images if isinstance(images, list) else [images]
    if not builtin.is_base(base) or not all(_is_builtin(spec) for spec in specs):
        return None
    parts = [spec.removeprefix(builtin.PICTURE_PREFIX).partition("/") for spec in specs]
    name, _, number = parts[0]
    if {part[0] for part in parts} != {name} or name not in CONCEPTS:
        return None
    concept = CONCEPTS[name]
    return World(concept, concept.scenes()[int(number or 1) - 1])


def _is_builtin(spec: object) -> bool:
    return isinstance(spec, str) and spec.startswith(builtin.PICTURE_PREFIX)
