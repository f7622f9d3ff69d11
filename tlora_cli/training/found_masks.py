"""The training pictures of a run, with masks that are found by themselves if it says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.photos.finding import AUTO, IMAGES_KEY, MASKS_KEY, find_images
from tlora_cli.photos.masks.files import MaskFiles, mask_files
from tlora_cli.photos.masks.finder import FoundMask, MaskFinder
from tlora_cli.photos.training_images import TrainingImage, load_training_images
from tlora_cli.recipe.sections import ConceptConfig
from tlora_cli.training.run_folder import RunFolder


def load_concept(
    concept: ConceptConfig, resolution: int, run: RunFolder, notify: Callable[[str], None]
) -> list[TrainingImage]:
    """Return the pictures of a concept with their masks.

    Masks that are found are written into the run's folder and read from there, so that a resumed
    run has the same to the bit, and so that they can be looked at and corrected. In them, a place
    of the latent that the subject touches counts fully; in masks of the user's own by its share.

    Raises:
        UserError: if a picture or mask is missing, or a mask that was found can't be right.
    """
    if concept.masks != AUTO:
        return load_training_images(concept.images, concept.masks, resolution)
    photos = find_images(concept.images, IMAGES_KEY)
    files = mask_files(photos, run.masks)
    finder = MaskFinder(concept.mask_model, concept.class_name)
    doubts = []
    for photo, own in zip(photos, files, strict=True):
        if run.recipe.exists() and own.mask.exists():
            continue  # of the run that is resumed
        found = finder.find(photo, IMAGES_KEY)
        _keep(photo, found, own)
        if found.doubt:
            doubts.append(UserError(_said(photo, found), str(own.overlay), own.remedy))
        else:
            notify(f"{_said(photo, found)}: {own.overlay}")
    if doubts:
        raise doubts[0]
    masks = [str(own.mask) for own in files]
    return load_training_images([str(one) for one in photos], masks, resolution, touched=True)


def _keep(photo: Path, found: FoundMask, own: MaskFiles) -> None:
    """Write a mask, but not over one that was corrected after a start that failed."""
    if own.mask.exists():
        before = read_picture(own.mask, MASKS_KEY, "L")
        if not np.array_equal(np.asarray(before), np.asarray(found.mask)):
            raise UserError(
                f"{own.mask} is not the mask that is found for {photo}",
                where=f"{MASKS_KEY}: {AUTO}",
                do=f"if you corrected it, set {MASKS_KEY}: {own.mask.parent}; else remove it",
            )
    own.write(found)


def _said(photo: Path, found: FoundMask) -> str:
    if found.doubt:
        return f"the mask that {found.by} gives for {photo} {found.doubt}"
    return f"mask of {photo}: {found.coverage:.0%} of it, by {found.by}"
