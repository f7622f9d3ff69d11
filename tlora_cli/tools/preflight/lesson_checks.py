"""A look at the words and the places of a training."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from tlora_cli.families import FAMILIES
from tlora_cli.families.text_length import check_lengths, local_tokenizers
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.photos.captions.files import CAPTION, caption_beside
from tlora_cli.photos.finding import find_images
from tlora_cli.photos.framing import Frame
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.words import word_doubts
from tlora_cli.tools.preflight.findings import Finding, of_error, ok, warning
from tlora_cli.training.class_pictures import class_prompts
from tlora_cli.training.encoding import all_texts
from tlora_cli.training.from_recipe import base_of
from tlora_cli.training.lessons import caption_doubts, captions_of, names_of
from tlora_cli.training.scenes.folder import places_in
from tlora_cli.training.scenes.lists import list_of
from tlora_cli.training.shape import training_size

TRAINING_STEP = 3
"""Calls of the denoiser that a training step of one picture is worth: forward, backward twice."""


def look_at_words(recipe: Recipe) -> Iterator[Finding]:
    """Yield what is found of the prompts, and of texts beside the pictures, if they are used."""
    concept = recipe.concept
    yield from (
        warning("words", doubt, "write V* where it belongs") for doubt in word_doubts(recipe)
    )
    if not concept.captions:
        with suppress(UserError):  # told where pictures are looked at
            paths = _pictures(recipe)
            yield from (warning("captions", one) for one in caption_doubts(paths, concept))
        return
    try:
        paths = _pictures(recipe)
        for path in paths:
            captions_of(path, concept)
    except UserError as error:
        yield of_error("captions", error)
        return
    yield from (warning("captions", one) for one in caption_doubts(paths, concept))
    having = sum(caption_beside(path) is not None for path in paths)
    if not having:
        yield ok("captions", "no texts beside the pictures; the recipe's prompt is used")
    elif having < len(paths):
        yield warning(
            "captions",
            f"{len(paths) - having} of {len(paths)} pictures have no text beside them "
            "and get the recipe's prompt",
            f"write {paths[0].stem}{CAPTION} and so on (`tlora caption` writes drafts), or drop "
            "concept.captions",
        )
    else:
        yield ok("captions", "each picture has its text")


def _pictures(recipe: Recipe) -> list[Path]:
    """Return the concept's pictures; what is told of them is told where they are looked at."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return find_images(recipe.concept.images, "concept.images")


def look_at_lengths(recipe: Recipe) -> Iterator[Finding]:
    """Yield what the text encoders would cut off, if their tokenizers are on this machine."""
    folder, concept = _tokenizer_folder(recipe), recipe.concept
    if folder is None:
        return
    family = FAMILIES[recipe.family]
    try:
        paths = _pictures(recipe)
        captions = [text for path in paths for text in captions_of(path, concept)]
    except UserError:  # told where pictures and captions are looked at
        captions = []
    by_base = class_prompts(concept.prior, concept) if concept.prior else []
    texts = all_texts(recipe, captions, by_base)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        try:
            check_lengths(family, local_tokenizers(family, folder), texts, names_of(concept))
        except UserError as error:
            yield of_error("words", error)
    yield from (warning("words", str(one.message), "shorten it") for one in told)


def _tokenizer_folder(recipe: Recipe) -> Path | None:
    """Return the folder that holds the base's tokenizers; None if it isn't here."""
    base = base_of(recipe)
    if base.is_file:
        return expanded(base.config) if base.config else None
    if base.path is not None:
        return base.path
    file = f"{FAMILIES[recipe.family].text_tokenizer}/tokenizer_config.json"
    try:
        cached = try_to_load_from_cache(base.model, file, revision=base.revision)
    except ValueError:  # no Hub id
        return None
    return Path(cached).parents[1] if isinstance(cached, str) else None


def look_at_scenes(recipe: Recipe) -> Iterator[Finding]:
    """Yield where the scenes' places come from, and what it costs to draw them."""
    scenes = recipe.concept.scenes
    if scenes is None:
        return
    places = list_of(scenes.places, recipe.concept.class_name, recipe.base.model)
    if places is None:
        try:
            own = places_in(scenes.places, Frame(*training_size(recipe)))
        except UserError as error:
            yield of_error("scenes", error)
            return
        yield ok("scenes", f"{scenes.count}, on the pictures of {scenes.places}: {len(own)}")
        return
    pictures = len(places) * scenes.each
    yield ok(
        "scenes",
        f"{scenes.count}, on {pictures} drawn pictures of places; drawing them the first time "
        f"takes as long as {drawing_cost(recipe, pictures)} training steps, and later concepts "
        "use them again",
    )


def drawing_cost(recipe: Recipe, pictures: int) -> int:
    """Return how many training steps of one picture the drawing of pictures is worth."""
    sampling, family = recipe.sampling, FAMILIES[recipe.family]
    guided = family.guidance_doubles and sampling.guidance > family.guidance_none
    calls = 2 if guided else 1
    return round(pictures * sampling.steps * calls / TRAINING_STEP)
