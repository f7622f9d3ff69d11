"""Texts and pictures -> what the denoiser is trained on, each encoded once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tlora_cli.families import Conditioning, Family
from tlora_cli.families.text_length import check_lengths
from tlora_cli.families.text_rows import evened
from tlora_cli.photos.training_images import latent_mask
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.draw import Texts, encode_texts
from tlora_cli.training.batch import Encode, Example, Phrased
from tlora_cli.training.from_recipe import drawn_prompts
from tlora_cli.training.lessons import Lesson, class_caption, names_of
from tlora_cli.training.phrases import phrased_texts, phrases_of


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as the text encoders made them, before these are freed.

    Attributes:
        captions: of the concept, of its class if that is held, and the empty one if captions are
            left out at times; one row each.
        phrases: caption -> the same with phrases that no picture shows.
        by_base: prompts of what the base draws before it is adapted; None if nothing.
        drawn: returns the embeddings of all prompts that are drawn while training; None if none
            are.
        encode: encodes a caption anew, where a word is learned; else None.
        encoders: the pipeline, where a word is learned; else None.
    """

    captions: Mapping[str, Conditioning]
    phrases: Mapping[str, tuple[Phrased, ...]]
    by_base: Texts | None
    drawn: Callable[[], Texts] | None
    encode: Encode | None
    encoders: Any


def encode_all(
    recipe: Recipe,
    family: Family,
    pipeline: Any,
    captions: Sequence[str],
    by_base: Sequence[str],
    device: torch.device,
    *,
    begins: bool = True,
) -> EncodedTexts:
    """Encode all texts of a run.

    Args:
        recipe: of the run.
        family: of the base.
        pipeline: its text encoders.
        captions: of the concept's pictures.
        by_base: prompts of what the base draws before it is adapted.
        device: where the captions are needed.
        begins: whether the run begins; one that began with words that are cut off goes on.

    Raises:
        UserError: if the concept's words are cut off.
    """
    concept = recipe.concept
    wanted = list(captions)
    if asks_the_class(recipe):
        wanted += [class_caption(one, concept) for one in captions]
    if concept.caption_dropout:
        wanted.append("")
    texts = all_texts(recipe, captions, by_base)
    check_lengths(family, pipeline, texts, names_of(concept), stop=begins)
    cpu = torch.device("cpu")

    def encoded(text: str, where: torch.device) -> Conditioning:
        return to_device(family.encode_prompts(pipeline, [text]), where)

    with torch.no_grad():
        rows = {text: encoded(text, device) for text in dict.fromkeys(wanted)}
        phrases = {
            caption: tuple(
                Phrased(own, encoded(own, cpu), encoded(kind, cpu)) for own, kind in both
            )
            for caption, both in _phrased(recipe, captions).items()
        }
    encode, encoders = None, None
    if recipe.learns_word:  # the encoders stay: their answers change at each step
        encoders = pipeline
        for encoder in family.encoders_of(pipeline):
            encoder.requires_grad_(False)
        encode = Encoding(family, pipeline)
    drawn: Callable[[], Texts] | None = None
    if prompts := drawn_prompts(recipe):
        negative = recipe.sampling.negative_prompt
        drawn = functools.partial(encode_texts, family, pipeline, prompts, negative)
        if encoders is None:
            drawn = _constant(drawn())
    base_texts = encode_texts(family, pipeline, by_base, "") if by_base else None
    return in_one_length(EncodedTexts(rows, phrases, base_texts, drawn, encode, encoders))


def in_one_length(texts: EncodedTexts) -> EncodedTexts:
    """Return the texts with all that batches are made of in one length.

    So every step of a run has the same shapes, as a recorded one must.
    """
    captions, phrases, by_base = texts.captions, texts.phrases, texts.by_base
    flat = [*captions.values(), *(by_base.prompts.values() if by_base else ())]
    flat += [one for own in phrases.values() for both in own for one in (both.own, both.of_class)]
    even = iter(evened(flat))
    return replace(
        texts,
        captions={caption: next(even) for caption in captions},
        by_base=by_base and replace(by_base, prompts={one: next(even) for one in by_base.prompts}),
        phrases={
            caption: tuple(Phrased(one.caption, next(even), next(even)) for one in own)
            for caption, own in phrases.items()
        },
    )


def asks_the_class(recipe: Recipe) -> bool:
    """Say whether the loss takes answers to the captions with the class alone."""
    return recipe.train.preserve is not None or bool(recipe.concept.phrases)


def all_texts(recipe: Recipe, captions: Sequence[str], by_base: Sequence[str]) -> list[str]:
    """Return all texts that are encoded in a run, but for captions with the class alone.

    Args:
        recipe: of the run.
        captions: of the concept's pictures.
        by_base: prompts of what the base draws before it is adapted.
    """
    own = [text for pairs in _phrased(recipe, captions).values() for text, _ in pairs]
    texts = [*captions, *own, *by_base, *drawn_prompts(recipe), recipe.sampling.negative_prompt]
    return [text for text in texts if text]


def _phrased(recipe: Recipe, captions: Sequence[str]) -> dict[str, list[tuple[str, str]]]:
    concept = recipe.concept
    return phrased_texts(captions, phrases_of(concept, recipe.base.model), concept)


class Encoding:
    """Encodes captions anew while a word is learned, and each once when the word stays.

    Args:
        family: of the base.
        pipeline: its text encoders.
    """

    def __init__(self, family: Family, pipeline: Any) -> None:
        self._family, self._pipeline = family, pipeline
        self._kept: dict[str, Conditioning] = {}

    def __call__(self, caption: str) -> Conditioning:
        """Return the embeddings of a caption, one row."""
        if caption in self._kept:
            return self._kept[caption]
        made = self._family.encode_prompts(self._pipeline, [caption])
        if not any(one.requires_grad for one in made.values()) and torch.is_grad_enabled():
            self._kept[caption] = made  # nothing that it depends on is learned any more
        return made


def _constant(texts: Texts) -> Callable[[], Texts]:
    return lambda: texts


def to_device(texts: Conditioning, device: torch.device) -> Conditioning:
    """Return the embeddings on a device."""
    return {key: value.to(device) for key, value in texts.items()}


_NO_PHRASES: Mapping[str, tuple[Phrased, ...]] = {}


def encode_lessons(
    family: Family,
    vae: Any,
    lessons: Iterable[Lesson],
    texts: Mapping[str, Conditioning],
    device: torch.device,
    class_of: Callable[[str], str] | None = None,
    phrases: Mapping[str, tuple[Phrased, ...]] = _NO_PHRASES,
) -> list[Example]:
    """Return the lessons, encoded; a picture with several captions is encoded once.

    Args:
        family: of the base.
        vae: its VAE.
        lessons: pictures and captions.
        texts: embeddings of the captions.
        device: where the examples go.
        class_of: caption -> the same with the class in place of the concept, if the loss takes
            answers to it.
        phrases: caption -> the same with phrases.
    """
    examples: list[Example] = []
    before: Lesson | None = None
    for lesson in lessons:
        image = lesson.image
        if before is None or before.image is not image:
            latent = family.encode_image(vae, image.pixels)
            size = to_device(family.image_conditioning(image.part, image.size), device)
            weight = None
            if image.mask is not None:
                sides = latent.mean.shape[-2:]
                weight = latent_mask(image.mask, *sides, touched=image.touched).to(device)
        before = lesson
        classes = texts[class_of(lesson.caption)] if class_of else None
        text = {**texts[lesson.caption], **size}
        own = phrases.get(lesson.caption, ())
        examples.append(Example(latent, text, weight, lesson.caption, classes, own))
    return examples
