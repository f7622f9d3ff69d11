"""Section of the recipe's `concept`: scenes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from tlora_cli.recipe.strict_section import Problem, Section


class ScenesConfig(Section):
    """Train on scenes: the subject, cut out along its mask, on places that the base model drew."""

    count: int = Field(64, ge=1, description="How many scenes; they are encoded once.")
    places: str = Field(
        "auto",
        min_length=1,
        description="Where the subject is put: animals, people or things (lists of places), auto "
        "(the list that fits the class), or a folder of your own pictures, each with a text beside "
        'it (beach.jpg, beach.txt: "on the beach").',
    )
    each: int = Field(2, ge=1, description="Pictures of each place that the base draws.")
    untouched: float = Field(
        0.25, ge=0, lt=1, description="Share of the scenes that are the untouched photo."
    )
    movement: float = Field(
        0.25, ge=0, le=1, description="How far the subject moves sideways, in terms of the side."
    )
    sizes: tuple[float, float] = Field(
        (0.85, 1.09), strict=False, description="Least and largest scale of the subject."
    )
    loss: Literal["whole", "subject"] = Field(
        "subject",
        description="Where the loss counts: on the subject only, or everywhere (whole), so that "
        "places stay as the base draws them.",
    )
    mirror: bool = Field(True, description="Mirror half of the subjects; not for letters.")

    def problems(self) -> Iterator[Problem]:
        """Yield sizes that are no range."""
        small, large = self.sizes
        if not 0 < small <= large:
            yield Problem("must be two sizes above 0, the smaller one first", ("sizes",))
