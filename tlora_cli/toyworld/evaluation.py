"""The built-in world's own evaluation: its prompts, and what its judge counts.

The scores are defined in `toyworld/scores.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from tlora_cli.evaluation.image_requests import Counts, ImageRequest
from tlora_cli.foundation.bundled import bundle_of_picture
from tlora_cli.toyworld import reading, scores, studio
from tlora_cli.toyworld.bundle import BUNDLE
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
class ConceptEvaluation:
    """A concept of the built-in world that was learned from one of its pictures.

    Attributes:
        concept: what was learned.
        training: the picture it was learned from.
        counts: how many pictures; `CONTEXTS` times `count` in other contexts, `FREE` times
            `free_count` without the concept, with the adapter and without it.
    """

    concept: Concept
    training: Scene
    counts: Counts

    def tasks(self) -> dict[str, list[Task]]:
        """Return the tasks of each group."""
        counts, seed = self.counts, self.counts.seed
        free = base_tasks(FREE * counts.free_count, held_out=False, seed=seed)
        return {
            "base": base_prompt(self.concept, counts.base_count, seed),
            "suite": contexts(self.concept, CONTEXTS * counts.count, self.training, seed),
            "free": free,
            "free_without": free,
        }

    def requests(self) -> list[ImageRequest]:
        """Return the pictures of an evaluation, in the order of the tasks."""
        return [
            ImageRequest(group, task.text, task.seed)
            for group, tasks in self.tasks().items()
            for task in tasks
        ]

    def judge(
        self, pictures: Sequence[Image.Image]
    ) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Return S*, TS*, ID*, details, leak and copy, and for each picture what counts of them.

        Args:
            pictures: in the order of `requests`.
        """
        groups = self.tasks()
        tasks = [task for part in groups.values() for task in part]
        readings = reading.read(pictures)
        drawn = [Drawn(*one) for one in zip(tasks, pictures, readings, strict=True)]
        first, last = len(groups["base"]), len(groups["base"]) + len(groups["suite"])
        plain, placed = drawn[:first], drawn[first:last]
        summary = {
            "S*": studio.success(placed, self.concept).value,
            "TS*": studio.prompted(placed).value,
            "ID*": studio.identity(placed, self.concept).value,
            "ID* (base prompt)": studio.identity(plain, self.concept).value,
            "details": studio.details(placed, self.concept).value,
            "leak": studio.leak(placed, self.training).value,
            "copy": studio.copies(placed, self.training).value,
        }
        rows: list[dict[str, float]] = []
        for number, one in enumerate(drawn):
            row = {}
            if number < last:
                row["ID*"] = float(scores.identity_right(one.reading, self.concept.values))
            if first <= number < last:
                asked, concept = one.task.asked, self.concept.values
                row["S*"] = float(scores.wholly_right(one.reading, asked, concept))
                row["TS*"] = float(scores.prompted_right(one.reading, asked))
                row["details"] = float(scores.details_right(one.reading, concept))
                row["leak"] = float(scores.leaked(one.reading, asked, self.training.values))
            rows.append(row)
        return summary, rows


def find_evaluation(concept: Mapping[str, Any], counts: Counts) -> ConceptEvaluation | None:
    """Return the evaluation of a concept that was learned from pictures of the built-in world.

    Of several training pictures the first is the one whose background and position may leak.

    Args:
        concept: section of the adapter's recipe.
        counts: how many pictures.
    """
    images = concept.get("images")
    specs: list[Any] = images if isinstance(images, list) else [images]
    if any(bundle_of_picture(spec) is not BUNDLE for spec in specs):
        return None
    parts = [BUNDLE.parts_of(spec) for spec in specs]
    name, number = parts[0]
    if {part[0] for part in parts} != {name} or name not in CONCEPTS:
        return None
    learned = CONCEPTS[name]
    return ConceptEvaluation(learned, learned.scenes()[int(number or 1) - 1], counts)
