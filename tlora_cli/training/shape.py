"""The sizes that a run's pictures are trained at, which drawing them follows."""

from __future__ import annotations

import warnings
from collections.abc import Collection

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import picture_size
from tlora_cli.photos.finding import IMAGES_KEY, find_images
from tlora_cli.photos.framing import Frame, Size, frame_for
from tlora_cli.recipe.models import Recipe


def frame_of(recipe: Recipe) -> Frame:
    """Return what of a photo a recipe trains on."""
    train = recipe.train
    return frame_for(train.crop, train.resolution, FAMILIES[recipe.family].pixel_multiple)


def training_sizes(recipe: Recipe) -> list[Size]:
    """Return the sizes of the training pictures, each once; of the photos only headers are read.

    Photos that aren't there, as when a run is planned for another machine, are taken to be square;
    whoever reads them tells that they are missing.
    """
    frame = frame_of(recipe)
    if frame.multiple is None:
        return [(frame.width, frame.height)]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # told where the pictures are read
            photos = find_images(recipe.concept.images, IMAGES_KEY)
        found = [frame.size(picture_size(photo, IMAGES_KEY)) for photo in photos]
    except UserError:
        return [(frame.width, frame.height)]
    return list(dict.fromkeys(found))


def training_size(recipe: Recipe) -> Size:
    """Return the size of the training pictures; of those that differ in shape, the square's."""
    sizes = training_sizes(recipe)
    side = recipe.train.resolution
    return sizes[0] if len(sizes) == 1 else (side, side)


def largest_size(recipe: Recipe) -> Size:
    """Return the size of the training picture with most pixels."""
    return max(training_sizes(recipe), key=lambda size: size[0] * size[1])


def shape_problem(recipe: Recipe, sizes: Collection[Size]) -> UserError | None:
    """Return why pictures of these sizes can't be trained on together; None if they can.

    Args:
        recipe: of the run.
        sizes: of the training pictures.
    """
    train, shapes = recipe.train, set(sizes)
    if len(shapes) < 2:
        return None
    reasons = {
        "train.batch_size": train.batch_size > 1 and f"takes {train.batch_size} of them at once",
        "concept.prior": recipe.concept.prior and "has class pictures beside each of them",
        "train.execution": train.execution == "cuda_graph" and "records a step of a single shape",
    }
    for key, reason in reasons.items():
        if reason:
            return UserError(
                f"the training pictures have {len(shapes)} shapes, but {key} {reason}",
                where="train.crop",
                do="crop them to a square (train.crop: center), or "
                + ("set train.batch_size: 1" if key == "train.batch_size" else f"drop {key}"),
            )
    return None
