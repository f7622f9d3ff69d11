"""The part of a bundle in the evaluation of its own concepts: prompts, and a judge that counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from PIL import Image

from tlora_cli.evaluation.image_requests import Counts, ImageRequest, requests_of_suite
from tlora_cli.evaluation.suites import suite_for
from tlora_cli.foundation.bundled import Bundle
from tlora_cli.foundation.plugins import resolve


class JudgedEvaluation(Protocol):
    """A concept of a bundle: what is drawn of it, and what its judge sees there."""

    def requests(self) -> list[ImageRequest]:
        """Return the pictures to draw."""

    def judge(
        self, pictures: Sequence[Image.Image]
    ) -> tuple[dict[str, float], list[dict[str, float]]]:
        """Return score -> value over all pictures, and the same for each picture.

        Args:
            pictures: in the order of `requests`.
        """


class FindEvaluation(Protocol):
    """Finds the evaluation of a concept."""

    def __call__(self, concept: Mapping[str, Any], counts: Counts) -> JudgedEvaluation | None:
        """Return the evaluation for what an adapter learned, or None if it is not the bundle's.

        Args:
            concept: section of the adapter's recipe.
            counts: how many pictures.
        """


def judged_evaluation(
    bundle: Bundle | None, recipe: Mapping[str, Any], counts: Counts
) -> JudgedEvaluation | None:
    """Return a bundle's own evaluation of an adapter, or None where there is none."""
    if bundle is None or bundle.evaluation is None:
        return None
    find: FindEvaluation = resolve(bundle.evaluation)
    return find(recipe.get("concept", {}), counts)


def requests_of(
    judged: JudgedEvaluation | None,
    prompts: Sequence[str] | None,
    class_name: str,
    counts: Counts,
) -> list[ImageRequest]:
    """Return the pictures that an evaluation draws.

    Args:
        judged: a bundle's own evaluation, which knows its pictures; else a suite says them.
        prompts: of the suite; None for the one that suits the class.
        class_name: of the concept.
        counts: how many pictures.
    """
    if judged is not None:
        return judged.requests()
    return requests_of_suite(prompts or suite_for(class_name).prompts, counts)
