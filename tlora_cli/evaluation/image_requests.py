"""The pictures of an evaluation: prompts with V* for the concept, each with a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tlora_cli.evaluation.suites import BASE, CONCEPT_FREE


@dataclass(frozen=True)
class ImageRequest:
    """One picture to draw.

    Attributes:
        group: `base` (of the base prompt), `suite` (of the prompts), `free` (of concept-free
            prompts, with the adapter), `free_without` (the same without it) or `suite_without`
            (of the suite's prompts with the class in place of V*, without the adapter).
        prompt: with V* for the concept.
        seed: of its noise.
    """

    group: str
    prompt: str
    seed: int


@dataclass(frozen=True)
class Counts:
    """The numbers of pictures that an evaluation draws.

    Attributes:
        count: pictures of each prompt of the suite.
        base_count: pictures of the base prompt.
        free_count: pictures of each concept-free prompt, with and without the adapter.
        seed: of the first picture of each prompt; the next have seed + 1, ...
    """

    count: int
    base_count: int
    free_count: int
    seed: int


def requests_of_suite(prompts: Sequence[str], counts: Counts) -> list[ImageRequest]:
    """Return the pictures of an evaluation with a prompt suite.

    Args:
        prompts: of the suite.
        counts: how many pictures.
    """
    groups: dict[str, tuple[Sequence[str], int]] = {
        "base": ([BASE], counts.base_count),
        "suite": (prompts, counts.count),
        "free": (CONCEPT_FREE, counts.free_count),
        "free_without": (CONCEPT_FREE, counts.free_count),
    }
    return [
        ImageRequest(group, prompt, counts.seed + turn)
        for group, (texts, turns) in groups.items()
        for prompt in texts
        for turn in range(turns)
    ]


def requests_without(requests: Sequence[ImageRequest], class_name: str) -> list[ImageRequest]:
    """Return a picture of each prompt of the suite that the base draws without the adapter.

    Args:
        requests: of the evaluation; a prompt's first seed is taken.
        class_name: what stands for V*, which the base does not know.
    """
    seeds: dict[str, int] = {}
    for one in requests:
        if one.group == "suite":
            seeds.setdefault(one.prompt.replace("V*", class_name), one.seed)
    return [ImageRequest("suite_without", prompt, seed) for prompt, seed in seeds.items()]
