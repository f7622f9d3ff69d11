"""Lessons that are looked at as they pass by, because not all of them fit into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from PIL import Image

from tlora_cli.training.kept_images import small_pictures
from tlora_cli.training.lessons import Lesson


class WatchedLessons:
    """Keeps a digest of lessons, and small copies.

    Args:
        digest: of what lies under them; it counts, too.

    Attributes:
        small: copies of the pictures, RGB; of one that comes again at once, a single copy.
    """

    def __init__(self, digest: str) -> None:
        self._digest = hashlib.sha256(digest.encode())
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
            for tensor in (image.pixels, image.mask):
                self._digest.update(b"none" if tensor is None else tensor.numpy().tobytes())
            self._digest.update(lesson.caption.encode())
            if image is not before:
                self.small += [one.picture for one in small_pictures([image])]
            before = image
            yield lesson
