"""The files that the recipe entries of pictures and masks name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tlora_cli.foundation.bundled import bundle_of_picture, picture_files
from tlora_cli.foundation.errors import UserError, system_reason
from tlora_cli.foundation.files import expanded
from tlora_cli.photos.folder import pictures_in

IMAGES_KEY, MASKS_KEY = "concept.images", "concept.masks"
AUTO = "auto"
"""The word in place of mask files: they are found by themselves (`photos.masks`)."""


def find_images(spec: str | Sequence[str], key: str) -> list[Path]:
    """Return the files that a recipe entry names, at least one.

    Args:
        spec: a picture; a folder, of which the files with a known ending are taken in the order of
            their names (`photos.folder` says what is told of others); the name of a bundle's
            pictures (`bundled.picture_files`); or a list of pictures.
        key: the entry, for messages, e.g. `concept.images`.

    Raises:
        UserError: if something named is missing or not a file, or nothing is found.
    """
    if isinstance(spec, str):
        path = expanded(spec)
        return _list_folder(path, key) if _is_folder(path, key) else _named(spec, key)
    if not spec:
        raise UserError("the list of pictures is empty", where=key, do="name at least one picture")
    return [path for name in spec for path in _named(name, key)]


def name_of(image: str) -> str:
    """Return a name for a run, of the picture's or the folder's."""
    bundle = bundle_of_picture(image)
    stem = bundle.parts_of(image)[0] if bundle else expanded(image).resolve().stem
    return re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "concept"


def match_masks(paths: list[Path], masks: str | Sequence[str]) -> list[Path]:
    """Return the mask of each picture.

    Raises:
        UserError: if one is missing, or which is whose can't be told.
    """
    found = find_images(masks, MASKS_KEY)
    if isinstance(masks, str) and _is_folder(expanded(masks), MASKS_KEY):
        matched = [_mask_of(path, found, masks) for path in paths]
    elif len(found) == len(paths):
        matched = found
    else:
        raise UserError(
            f"there are {len(paths)} pictures and {len(found)} masks",
            where=MASKS_KEY,
            do="give one mask for each picture, in the same order, or a folder of masks",
        )
    for path, mask in zip(paths, matched, strict=True):
        if path.resolve() == mask.resolve():
            raise UserError(
                f"{path} is named as its own mask",
                where=MASKS_KEY,
                do="name a black picture that is white where the subject is",
            )
    return matched


def _is_folder(path: Path, key: str) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise _unreachable(path, error, key) from error


def _list_folder(folder: Path, key: str) -> list[Path]:
    try:
        found = pictures_in(folder, key)
    except OSError as error:
        raise _unreachable(folder, error, key) from error
    return [_check_file(str(path), key) for path in found]


def _named(name: str, key: str) -> list[Path]:
    if bundle := bundle_of_picture(name):
        return picture_files(bundle, name, key, masks=key == MASKS_KEY)
    return [_check_file(name, key)]


def _check_file(name: str, key: str) -> Path:
    path = expanded(name)
    try:
        if path.is_file():
            return path
        found = path.exists()
    except OSError as error:
        raise _unreachable(path, error, key) from error
    if found:
        raise UserError(f"{name!r} is not a file", where=key, do="name a picture file")
    if "://" in name:
        raise UserError(
            f"{name!r} is an address, and pictures are read from this machine only",
            where=key,
            do="download the picture and name its file",
        )
    if path.is_symlink():
        raise UserError(f"{name!r} is a broken link", where=key, do="mend or remove the link")
    raise UserError(
        f"there is no file {name!r}",
        where=key,
        do=f"check the name; relative names start at {Path.cwd()}",
    )


def _unreachable(path: Path, error: OSError, key: str) -> UserError:
    reason = system_reason(error)
    return UserError(
        f"{path} can't be opened: {reason}", where=key, do="check the name and its permissions"
    )


def _mask_of(path: Path, masks: list[Path], folder: str) -> Path:
    matching = [mask for mask in masks if mask.stem == path.stem]
    if len(matching) == 1:
        return matching[0]
    if matching:
        what = f"{len(matching)} masks are there for {path.name}: "
        what += ", ".join(mask.name for mask in matching)
        raise UserError(what, where=f"{MASKS_KEY}: {folder}", do="leave only one of them")
    raise UserError(
        f"there is no mask for {path.name}",
        where=f"{MASKS_KEY}: {folder}",
        do=f"add {path.stem}.png, or drop {MASKS_KEY}",
    )
