"""The part of a photo that is trained on, and how large it becomes.

As published it is the middle square. A photo may keep its shape instead: it then gets about as many
pixels as the square, so that a step costs the same, and sides that the base can be given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Size = tuple[int, int]
"""Width and height in pixels."""
Edges = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels, the last two excluded."""

CENTER, SUBJECT, WHOLE = "center", "subject", "none"
CROPS = {
    CENTER: "the middle square, as published",
    SUBJECT: "a square as large, moved so that the subject is in its middle; needs masks",
    WHOLE: "the whole picture in its own shape, of as many pixels as the square",
}
"""Name in a recipe -> what is trained on."""
LONGEST = 4.0
"""Most times that a picture may be as long as it is wide, as in SDXL's own training (section 2.3);
of a longer one the middle is taken."""


@dataclass(frozen=True)
class Frame:
    """The part of a photo that is taken, and its size after that.

    Attributes:
        width, height: of the result in pixels; with `multiple`, of one of as many pixels.
        around_subject: whether the subject is put in the middle, where it is known.
        multiple: of which the sides are, if the photo keeps its shape; None if it doesn't.
    """

    width: int
    height: int
    around_subject: bool = False
    multiple: int | None = None

    def size(self, photo: Size) -> Size:
        """Return the size that a photo gets."""
        if self.multiple is None:
            return self.width, self.height
        return own_size(photo, math.sqrt(self.width * self.height), self.multiple)

    def box(self, photo: Size, subject: Edges | None = None) -> Edges:
        """Return the part of a photo that is taken: the largest of the result's shape.

        Args:
            photo: its size.
            subject: where its subject is; None if that is not known.
        """
        (width, height), (across, down) = photo, self.size(photo)
        if width * down >= height * across:
            part = max(1, round(height * across / down)), height
        else:
            part = width, max(1, round(width * down / across))
        left, top = (width - part[0]) // 2, (height - part[1]) // 2
        if self.around_subject and subject is not None:
            left = _around(subject[0], subject[2], part[0], width)
            top = _around(subject[1], subject[3], part[1], height)
        return left, top, left + part[0], top + part[1]


def square(side: int) -> Frame:
    """Return the published frame: the middle square."""
    return Frame(side, side)


def frame_for(crop: str, resolution: int, multiple: int) -> Frame:
    """Return the frame of a name of `CROPS`.

    Args:
        crop: the name.
        resolution: side of the square.
        multiple: of which the sides are.
    """
    return Frame(resolution, resolution, crop == SUBJECT, multiple if crop == WHOLE else None)


def own_size(photo: Size, side: float, multiple: int) -> Size:
    """Return the size of about side x side pixels that has a photo's shape.

    Args:
        photo: its size.
        side: of a square of as many pixels.
        multiple: of which width and height are.
    """
    ratio = min(max(photo[0] / photo[1], 1 / LONGEST), LONGEST)
    wanted = side * math.sqrt(ratio), side / math.sqrt(ratio)
    width, height = (max(1, round(one / multiple)) * multiple for one in wanted)
    return width, height


def _around(first: int, last: int, part: int, whole: int) -> int:
    """Return where a part of a direction begins, that has first..last in its middle if it can."""
    return min(max(0, (first + last - part) // 2), whole - part)
