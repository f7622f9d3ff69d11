"""Lessons that are looked at as they pass by, because not all of them fit into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from PIL import Image

from tlora_cli.photos.training_images import TrainingImage
from tlora_cli.training.kept_images import small_pictures
from tlora_cli.training.lessons import Lesson


def content_of(image: TrainingImage) -> bytes:
    """Return what a picture and its mask hold after cropping."""
    held = (image.pixels, image.mask)
    return b"".join(b"none" if one is None else one.numpy().tobytes() for one in held)


class WatchedLessons:
    """Keeps a digest of lessons, and small copies.

    Args:
        under: digest of what lies under them; it counts, too.

    Attributes:
        small: copies of the pictures, RGB; of one that comes again at once, a single copy.
    """

    def __init__(self, under: str) -> None:
        self._digest = hashlib.sha256(under.encode())
        self.small: list[Image.Image] = []

    @property
    def digest(self) -> str:
        """The digest of pictures, masks and captions so far."""
        return self._digest.hexdigest()

    def passing(self, lessons: Iterable[Lesson]) -> Iterator[Lesson]:
        """Yield the lessons, and look at each."""
        before = None
        for lesson in lessons:
            image = lesson.image
            self._digest.update(content_of(image))
            self._digest.update(lesson.caption.encode())
            if image is not before:
                self.small += [one.picture for one in small_pictures([image])]
            before = image
            yield lesson
