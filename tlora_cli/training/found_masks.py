"""The training pictures of a run, with masks that are found by themselves if it says so."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.bundled import version_of
from tlora_cli.foundation.errors import UserError, system_reason
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.photos.finding import AUTO, IMAGES_KEY, MASKS_KEY, find_images
from tlora_cli.photos.masks.files import MaskFiles, mask_files
from tlora_cli.photos.masks.finder import FoundMask, MaskFinder, Seen, needs_looking
from tlora_cli.photos.training_images import TrainingImage, load_training_images
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.known_world import strangers
from tlora_cli.sampling.looking import look
from tlora_cli.training.from_recipe import base_of
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.shape import frame_of

Notify = Callable[[str], None]
"""Shows the user a line."""


def load_concept(
    recipe: Recipe, run: RunFolder, device: torch.device, notify: Notify
) -> list[TrainingImage]:
    """Return the pictures of a concept with their masks.

    Masks that are found are written into the run's folder and read from there, so that a resumed
    run has the same to the bit, and so that they can be looked at and corrected. In them, a place
    of the latent that the subject touches counts fully; in masks of the user's own by its share.

    Raises:
        UserError: if a picture or mask is missing, or a mask that was found can't be right.
    """
    concept, frame = recipe.concept, frame_of(recipe)
    if concept.masks != AUTO:
        return load_training_images(concept.images, concept.masks, frame)
    photos = find_images(concept.images, IMAGES_KEY)
    files = mask_files(photos, run.masks)
    pairs = [
        (photo, own)
        for photo, own in zip(photos, files, strict=True)
        if not (run.recipe.exists() and own.mask.exists())  # of the run that is resumed
    ]
    doubts = []
    for photo, own, found in find_masks(recipe, pairs, device, notify):
        if found.doubt:
            doubts.append(UserError(_said(photo, found), str(own.overlay), own.remedy))
        else:
            notify(f"{_said(photo, found)}: {own.overlay}")
    if doubts:
        raise doubts[0]
    masks = [str(own.mask) for own in files]
    return load_training_images([str(one) for one in photos], masks, frame, touched=True)


def find_masks(
    recipe: Recipe,
    pairs: Sequence[tuple[Path, MaskFiles]],
    device: torch.device,
    notify: Notify,
) -> list[tuple[Path, MaskFiles, FoundMask]]:
    """Return the masks of photos, written down; those of a start that failed are taken as found.

    Args:
        recipe: of the run.
        pairs: photos, each with the files of its mask.
        device: where the base looks at them.
        notify: told what is loaded.

    Raises:
        UserError: if a photo or the base can't be read, or a mask was painted over.
    """
    questions = {photo: question_of(recipe, photo) for photo, _ in pairs}
    before = {
        photo: found
        for photo, own in pairs
        if (found := own.read(photo, IMAGES_KEY, questions[photo]))
    }
    seen = _seen(recipe, [photo for photo, _ in pairs if photo not in before], device, notify)
    finder = MaskFinder(recipe.concept.mask_model, recipe.concept.class_name)
    result = []
    for photo, own in pairs:
        found = before.get(photo)
        if found is None:
            found = finder.find(photo, IMAGES_KEY, seen.get(photo))
            _keep(photo, found, own, questions[photo])
        result.append((photo, own, found))
    return result


def _seen(
    recipe: Recipe, photos: Sequence[Path], device: torch.device, notify: Notify
) -> dict[Path, Seen]:
    """Return where the base sees the class, on the photos for which that is asked.

    A base that can draw no such picture isn't asked; `prepare` warns of that.
    """
    concept, base = recipe.concept, base_of(recipe)
    if concept.mask_model is not None:
        return {}
    asked = [
        one
        for one in photos
        if needs_looking(one, IMAGES_KEY) and not any(strangers(base.model, [one]))
    ]
    if not asked:
        return {}
    notify(f"loading {base.model} to find the subject; it is loaded again for training")
    family, train = FAMILIES[recipe.family], recipe.train
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are said when it is loaded again
        maps = look(family, base, train, concept.class_name, asked, IMAGES_KEY, device)
    return {photo: Seen(base.model, one) for photo, one in zip(asked, maps, strict=True)}


def question_of(recipe: Recipe, photo: Path) -> str:
    """Return a digest of all that the mask of a photo depends on."""
    concept, base, train = recipe.concept, recipe.base, recipe.train
    try:
        content = photo.read_bytes()
    except OSError as error:
        raise UserError(f"{photo} can't be read: {system_reason(error)}", IMAGES_KEY) from error
    asked = {
        "photo": hashlib.sha256(content).hexdigest(),
        "class": concept.class_name,
        "mask_model": concept.mask_model,
        "base": base.model_dump(),
        "base_version": version_of(base.model),
        "train": train.model_dump(
            include={"resolution", "precision", "quantization", "objective", "guidance"}
        ),
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _keep(photo: Path, found: FoundMask, own: MaskFiles, question: str) -> None:
    """Write a mask, but not over one that was corrected after a start that failed."""
    if own.painted:
        before = read_picture(own.mask, MASKS_KEY, "L")
        if not np.array_equal(np.asarray(before), np.asarray(found.mask)):
            raise UserError(
                f"{own.mask} is not the mask that is found for {photo}",
                where=f"{MASKS_KEY}: {AUTO}",
                do=f"if you corrected it, set {MASKS_KEY}: {own.mask.parent}; else remove it",
            )
    own.write(found, question)


def _said(photo: Path, found: FoundMask) -> str:
    if found.doubt:
        return f"the mask that {found.by} gives for {photo} {found.doubt}"
    return f"mask of {photo}: {found.coverage:.0%} of it, by {found.by}"
