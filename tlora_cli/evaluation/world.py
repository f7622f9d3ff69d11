"""The built-in world's own evaluation: its prompts, and what its judge counts.

The four scores are defined in `toyworld/scores.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tlora_cli.evaluation.image_requests import Ask
from tlora_cli.formats import AdapterInfo
from tlora_cli.foundation import bundled as builtin
from tlora_cli.toyworld import reading, scores, studio
from tlora_cli.toyworld.concepts import CONCEPTS, Concept
from tlora_cli.toyworld.factors import Scene
from tlora_cli.toyworld.studio import Drawn
from tlora_cli.toyworld.suites import Task, base_prompt, base_tasks, contexts

CONTEXTS = 10
"""Prompts with the concept in other contexts, for each picture that a prompt of a suite would get;
the world has prompts enough for every picture to have its own."""
FREE = 8
"""Prompts without the concept, for each picture that such a prompt would get elsewhere."""


@dataclass(frozen=True)
class World:
    """A concept of the built-in world that was learned from one of its pictures.

    Attributes:
        concept: what was learned.
        training: the picture it was learned from.
        count: a tenth of the pictures in other contexts.
        base_count: pictures of the base prompt.
        free_count: an eighth of the pictures without the concept, with and without the adapter.
        seed: of the first picture of each group.
    """

    concept: Concept
    training: Scene
    count: int
    base_count: int
    free_count: int
    seed: int

    def tasks(self) -> dict[str, list[Task]]:
        """Return the tasks of each group."""
        free = base_tasks(FREE * self.free_count, held_out=False, seed=self.seed)
        return {
            "base": base_prompt(self.concept, self.base_count, self.seed),
            "suite": contexts(self.concept, CONTEXTS * self.count, self.training, self.seed),
            "free": free,
            "free_without": free,
        }

    def asks(self) -> list[Ask]:
        """Return the pictures of an evaluation, in the order of the tasks."""
        return [
            Ask(group, task.text, task.seed)
            for group, tasks in self.tasks().items()
            for task in tasks
        ]

    def judge(
        self, pictures: Sequence[Image.Image]
    ) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Return TS*, ID*, leak and copy, and for each picture what counts of them.

        Args:
            pictures: in the order of `asks`.
        """
        groups = self.tasks()
        tasks = [task for part in groups.values() for task in part]
        readings = reading.read(pictures)
        drawn = [Drawn(*one) for one in zip(tasks, pictures, readings, strict=True)]
        first, last = self.base_count, self.base_count + len(groups["suite"])
        plain, placed = drawn[:first], drawn[first:last]
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
            if number < last:
                row["ID*"] = float(scores.identity_right(one.reading, self.concept.values))
            if first <= number < last:
                asked = one.task.asked
                row["TS*"] = float(scores.prompted_right(one.reading, asked))
                row["leak"] = float(scores.leaked(one.reading, asked, self.training.values))
            rows.append(row)
        return summary, rows


def world_of(
    base: str, info: AdapterInfo, *, count: int, base_count: int, free_count: int, seed: int
) -> World | None:
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
    training = concept.scenes()[int(number or 1) - 1]
    return World(concept, training, count, base_count, free_count, seed)


def _is_builtin(spec: object) -> bool:
    return isinstance(spec, str) and spec.startswith(builtin.PICTURE_PREFIX)
