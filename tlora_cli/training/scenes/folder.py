"""A folder of the user's own places: pictures, each with its words in a text beside it."""

from __future__ import annotations

from torch import Tensor

from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.captions.files import CAPTION
from tlora_cli.photos.finding import find_images
from tlora_cli.photos.framing import Frame
from tlora_cli.photos.training_images import load_training_image
from tlora_cli.training.lessons import read_caption

KEY = "concept.scenes.places"


def places_in(folder: str, frame: Frame) -> list[tuple[str, Tensor]]:
    """Return the words and the pixels (3, H, W) in [-1, 1] of each picture in a folder.

    Raises:
        UserError: if it isn't there or holds no picture, or a picture has no words.
    """
    found = []
    for path in find_images(folder, KEY):
        text = path.with_suffix(CAPTION)
        if not text.exists():
            raise UserError(
                f"there are no words for the place {path}",
                where=KEY,
                do=f'write them into {text.name} beside it, such as "on the beach"',
            )
        found.append((read_caption(text), load_training_image(path, None, frame).pixels))
    return found
