"""A look at a recipe's words: does a training prompt name what is to be learned?

Not part of the models: a run that was started before this was looked at can be read and resumed.
"""

from __future__ import annotations

from collections.abc import Iterator

from tlora_cli.foundation.prompts import (
    has_mark,
    names_concept,
    odd_mark,
    sampling_prompt,
    training_prompt,
)
from tlora_cli.recipe.mistakes import KeyPath, Mistake, recipe_error
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.sections import ConceptConfig


def word_problems(recipe: Recipe) -> list[tuple[KeyPath, str]]:
    """Return the path of each wrong value in the recipe, and what is wrong with it."""
    concept, known = recipe.concept, [recipe.concept.placeholder]
    found = [(path, odd) for path, text in _prompts(recipe) if (odd := odd_mark(text, known))]
    lacking = nameless_prompts(concept)
    if len(lacking) == len(concept.prompts or [concept.prompt]):
        key = "prompt" if concept.prompts is None else "prompts"
        text = (
            f"no training prompt names the concept ({concept.placeholder}), so nothing would be "
            "learned for it; write V* or {placeholder} {class} where it belongs"
        )
        found.append((("concept", key), text))
    for path, text in _prompts(recipe):
        if _OF_OTHERS.intersection(path) and has_mark(text):
            found.append((path, "it shows no concept, so V* means nothing in it; drop that"))
    return found


_OF_OTHERS = {"prior", "negative_prompt"}
"""Keys of prompts that don't show the concept."""


def _prompts(recipe: Recipe) -> Iterator[tuple[KeyPath, str]]:
    """Yield the path and the text of every prompt in a recipe."""
    concept, preview = recipe.concept, recipe.train.preview
    yield ("concept", "prompt"), concept.prompt
    for number, text in enumerate(concept.prompts or ()):
        yield ("concept", "prompts", number), text
    if concept.prior:
        yield ("concept", "prior", "prompt"), concept.prior.prompt
        for number, text in enumerate(concept.prior.prompts or ()):
            yield ("concept", "prior", "prompts", number), text
    if preview:
        for number, text in enumerate(preview.prompts):
            yield ("train", "preview", "prompts", number), text
    yield ("sampling", "negative_prompt"), recipe.sampling.negative_prompt


def word_doubts(recipe: Recipe) -> list[str]:
    """Return what may not be meant: prompts without the concept beside others that have it."""
    concept, preview = recipe.concept, recipe.train.preview
    said = [
        f"the training prompt {text!r} does not name the concept, so what its pictures show is "
        "learned for other words"
        for text in nameless_prompts(concept)
    ]
    for text in preview.prompts if preview else ():
        filled = sampling_prompt(text, concept.words, concept.placeholder, concept.class_name)
        if not names_concept(filled, [concept.placeholder]):
            said.append(f"the preview {text!r} does not name the concept (V*), so it shows another")
    return said


def check_words(recipe: Recipe) -> None:
    """Raise a UserError that names all that is wrong with a recipe's words."""
    if wrong := word_problems(recipe):
        raise recipe_error([Mistake(path, text) for path, text in wrong], "the recipe")


def nameless_prompts(concept: ConceptConfig) -> list[str]:
    """Return the training prompts, with marks filled in, that don't name the concept."""
    filled = [
        training_prompt(one, concept.placeholder, concept.class_name)
        for one in concept.prompts or [concept.prompt]
    ]
    return [one for one in filled if not names_concept(one, [concept.placeholder])]
