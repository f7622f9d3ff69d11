"""The pictures by which checkpoints are compared: few, and always the same."""

from __future__ import annotations

from dataclasses import dataclass

from tlora_cli.evaluation.suites import BASE, suite_for
from tlora_cli.foundation.bundled import Bundle

ENCODERS = ("clip", "dino")
"""Encoders that look at the pictures; names of `evaluation.encoder_kinds.KINDS`."""
MOST_STEPS = 12
"""Denoising steps, where the recipe's `sampling` has more: scoring so costs half. All checkpoints
and the base draw with as many, so they are compared fairly."""
PLAIN = 4
"""Pictures of the base prompt, for likeness."""
EVERY = 3
"""Every so-manieth contextual prompt of the suite that suits the class is drawn: nine, and of all
kinds (places, clothes, colors, light, styles), as the suite is in that order."""


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
    """Return the pictures that suit a class, on a base of a bundle or another one."""
    if bundle:
        return Trial(PLAIN, tuple(bundle.scoring_prompts))
    return Trial(PLAIN, suite_for(class_name).contextual[::EVERY])
