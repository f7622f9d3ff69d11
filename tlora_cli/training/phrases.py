"""Phrases that prompts will ask for and that no picture shows: "wearing a hat".

Half of the concept's samples have one in their caption, and their target gains what the base itself
makes of it. With the concept's caption c, the same caption k with the class in place of the
concept, a phrase p, the answers f of the adapted model and g of the base, and the target y of the
pictures:

    loss = || f(x_t, t, c + p) - (y + g(x_t, t, k + p) - g(x_t, t, k)) ||^2

So the model learns that the concept takes what the class takes. That differences of a diffusion
model's answers can be added up is from Liu et al. 2022 (arXiv 2206.01714), on conjunctions.
"""

from __future__ import annotations

from collections.abc import Sequence

from tlora_cli.foundation.bundled import bundle_of_base
from tlora_cli.recipe.sections import ConceptConfig
from tlora_cli.training.lessons import class_caption
from tlora_cli.training.scenes.lists import kind_of

EACH = 4
"""Phrases for each caption, at most: their embeddings are kept, and a recipe may have many."""

ANIMALS = (
    "wearing a hat", "wearing sunglasses", "wearing a scarf", "with a bow tie",
    "holding a flower", "carrying a stick", "with a balloon", "sitting in a basket",
)  # fmt: skip
PEOPLE = (
    "wearing a hat", "wearing sunglasses", "wearing a red coat", "with a backpack",
    "holding an umbrella", "holding a cup", "reading a book", "riding a bicycle",
)  # fmt: skip
THINGS = (
    "with a ribbon around it", "with a hat on it", "with a candle beside it", "with an apple on it",
    "with a label on it", "in a box", "held by a hand", "under a glass dome",
)  # fmt: skip
LISTS = {"animals": ANIMALS, "people": PEOPLE, "things": THINGS}
"""Kind of a class -> phrases."""


def phrases_of(concept: ConceptConfig, base: str) -> Sequence[str]:
    """Return the phrases of a recipe; of a bundle's base, those that it knows.

    Args:
        concept: of the recipe.
        base: name of the base model.
    """
    if concept.phrases is None:
        return ()
    if not isinstance(concept.phrases, str):
        return concept.phrases
    bundle = bundle_of_base(base)
    return bundle.phrases if bundle else LISTS[kind_of(concept.class_name)]


def with_phrase(caption: str, phrase: str) -> str:
    """Return "a photo of sks dog, in the snow, wearing a hat"."""
    return f"{caption}, {phrase}"


def deal(captions: Sequence[str], phrases: Sequence[str]) -> dict[str, list[str]]:
    """Return caption -> phrases for it; dealt in turn, so that each comes up as often as another.

    Args:
        captions: of the lessons; one that comes twice counts once.
        phrases: of the recipe.
    """
    each = min(EACH, len(phrases))
    return {
        caption: [phrases[(number * each + n) % len(phrases)] for n in range(each)]
        for number, caption in enumerate(dict.fromkeys(captions))
    }


def phrased_texts(
    captions: Sequence[str], phrases: Sequence[str], concept: ConceptConfig
) -> dict[str, list[tuple[str, str]]]:
    """Return caption -> pairs of texts with a phrase: of the concept, and of its class."""
    return {
        caption: [
            (with_phrase(caption, one), with_phrase(class_caption(caption, concept), one))
            for one in own
        ]
        for caption, own in deal(captions, phrases).items()
    }
