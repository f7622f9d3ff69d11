"""Lessons: a training picture with the words for it, and the words for its class."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.foundation.errors import UserError, system_reason
from tlora_cli.foundation.prompts import has_mark, odd_mark, sampling_prompt, training_prompt
from tlora_cli.photos.captions.files import caption_beside, without_picture
from tlora_cli.photos.training_images import TrainingImage
from tlora_cli.recipe.sections import ConceptConfig


@dataclass(frozen=True, eq=False)
class Lesson:
    """A picture and one of its captions.

    Attributes:
        image: the picture.
        caption: with the concept's words in it.
    """

    image: TrainingImage
    caption: str


class Photos:
    """The lessons of photos as they are: each with each of its captions.

    Args:
        images: the photos.
        concept: of the recipe.

    Attributes:
        captions: of all lessons, in their order.
        prompts: of what the base has to draw first: nothing.

    Raises:
        UserError: if a caption file can't be read, or is empty.
    """

    prompts: Sequence[str] = ()

    def __init__(self, images: Sequence[TrainingImage], concept: ConceptConfig) -> None:
        self._lessons = [
            Lesson(image, text) for image in images for text in captions_of(image.path, concept)
        ]
        self.captions = [lesson.caption for lesson in self._lessons]
        for doubt in caption_doubts([image.path for image in images], concept):
            warnings.warn(doubt, stacklevel=2)

    def draw_places(self, family: object, pipeline: object, texts: object) -> None:
        """Draw nothing."""

    def lessons(self) -> Sequence[Lesson]:
        """Return the lessons."""
        return self._lessons


def captions_of(picture: Path, concept: ConceptConfig) -> list[str]:
    """Return the captions of a picture: of the text beside it, or else the recipe's prompts.

    Raises:
        UserError: if the text can't be read, or is empty.
    """
    if concept.captions:
        file = caption_beside(picture)
        if file is not None:
            text = read_caption(file)
            if odd := odd_mark(text, [concept.placeholder]):
                raise UserError(f"the text {file.name} is not understood: {odd}", str(file), _MEND)
            text = training_prompt(text, concept.placeholder, concept.class_name)
            return [with_concept(text, concept.words)]
    words = concept.placeholder, concept.class_name
    return [training_prompt(one, *words) for one in concept.prompts or [concept.prompt]]


def caption_doubts(pictures: Sequence[Path], concept: ConceptConfig) -> list[str]:
    """Return what there is to say of texts that nobody reads."""
    if not concept.captions:
        unused = [file.name for one in pictures if (file := caption_beside(one))]
        if not unused:
            return []
        return [
            f"texts lie beside the pictures and are not used ({_few(unused)}); "
            "concept.captions: true uses them"
        ]
    lost = [file.name for file in without_picture(pictures)]
    if not lost:
        return []
    return [
        f"texts that belong to no picture are not used: {_few(lost)}; the text of photo.jpg is "
        "photo.txt"
    ]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def read_caption(file: Path) -> str:
    """Return the text of a caption file, on one line.

    Raises:
        UserError: if it can't be read, or is empty.
    """
    try:
        text = " ".join(file.read_text(encoding="utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise UserError(
            f"{file} is not UTF-8 text", where=_KEY, do="save it again as UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"{file} can't be read: {system_reason(error)}", where=_KEY) from error
    if not text:
        raise UserError(
            f"{file} is empty", where=_KEY, do="write what the picture shows, or remove the file"
        )
    return text


def with_concept(text: str, words: str) -> str:
    """Return a text that names the concept; where it doesn't, the concept comes first.

    Args:
        text: V* or {concept} stands for the concept.
        words: for the concept, e.g. "sks dog".
    """
    if has_mark(text):
        return sampling_prompt(text, words)
    return text if words in text else f"{words}, {text}"


def names_of(concept: ConceptConfig) -> tuple[str, str]:
    """Return the concept's words, and the rare one, which is enough by itself."""
    return concept.words, concept.placeholder


def class_caption(caption: str, concept: ConceptConfig) -> str:
    """Return a caption with the class in place of the concept: "a photo of dog, in the snow"."""
    return caption.replace(concept.words, concept.class_name)


_KEY = "concept.captions"
_MEND = "mend the text; V* stands for the concept"
