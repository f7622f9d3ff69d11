"""The pictures by which checkpoints are compared: few, small, drawn in few steps, always the same.

How many pictures and steps are enough was measured on the built-in world (docs/choosing.md); how
small they may be was not, as its own are small. All checkpoints and the base are drawn alike, so
they are compared fairly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tlora_cli.evaluation.suites import BASE, suite_for
from tlora_cli.families import Family
from tlora_cli.foundation.bundled import Bundle
from tlora_cli.sampling.draw import SamplingSettings

ENCODERS = ("clip", "dino")
"""Encoders that look at the pictures; names of `evaluation.encoder_kinds.KINDS`."""
SHARE, LEAST_STEPS, MOST_STEPS = 3, 6, 12
"""A third of the recipe's denoising steps, from 6 to 12. With 4, late checkpoints look better than
they are."""
PLAIN, PLACED = 2, 5
"""Pictures of the base prompt, for likeness, and of other prompts, for agreement."""


@dataclass(frozen=True)
class Trial:
    """The pictures that are drawn of each checkpoint.

    Attributes:
        plain: pictures of the base prompt; their seeds are 0, 1, ...
        prompts: other prompts, with V* for the concept; a picture each, of seed 0, 1, ...
    """

    plain: int
    prompts: tuple[str, ...]

    @property
    def pictures(self) -> list[tuple[str, int]]:
        """Prompt and seed of each picture, those of the base prompt first."""
        placed = [(prompt, seed) for seed, prompt in enumerate(self.prompts)]
        return [(BASE, seed) for seed in range(self.plain)] + placed


def trial_for(class_name: str, bundle: Bundle | None) -> Trial:
    """Return the pictures that suit a class, on a base of a bundle or another one.

    The prompts lie evenly in the bundle's or the suite's, which are in an order: other places, then
    what the concept does or wears, light.
    """
    known: Sequence[str] = bundle.scoring_prompts if bundle else suite_for(class_name).contextual
    count = min(PLACED, len(known))
    return Trial(PLAIN, tuple(known[number * len(known) // count] for number in range(count)))


def trial_settings(sampling: SamplingSettings, family: Family) -> SamplingSettings:
    """Return the settings of a run's pictures -> of those that checkpoints are compared by.

    They are no larger than the smallest square that the family draws well, at the same shape.
    """
    steps = min(sampling.steps, max(LEAST_STEPS, min(MOST_STEPS, sampling.steps // SHARE)))
    side, unit = min(family.resolutions), family.pixel_multiple
    shrunk = min(1.0, side / (sampling.width * sampling.height) ** 0.5)

    def smaller(length: int) -> int:
        return length if shrunk == 1 else max(1, round(length * shrunk / unit)) * unit

    return replace(
        sampling, steps=steps, width=smaller(sampling.width), height=smaller(sampling.height)
    )


def batch_of(drawn: SamplingSettings, sampling: SamplingSettings, bundle: Bundle | None) -> int:
    """Return how many pictures are drawn together: as many as take the memory of one preview.

    Args:
        drawn: settings of the pictures.
        sampling: of previews.
        bundle: that the base is one of, if it is.
    """
    if bundle:
        return bundle.batch_size
    return max(1, sampling.width * sampling.height // (drawn.width * drawn.height))
