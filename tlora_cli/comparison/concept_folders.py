"""Concepts from a folder: one folder a concept, as DreamBooth's data set lies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.photos.folder import pictures_in
from tlora_cli.recipe.mistakes import KeyPath, Mistake

KEYS = ("folder", "pictures")
CLASSES = "prompts_and_classes.txt"
"""A file of DreamBooth's data set beside its folders; lines `NAME,CLASS` say a folder's class."""


def with_folders(data: Mapping[str, Any]) -> tuple[dict[str, Any], list[Mistake]]:
    """Return a spelled-out grid with a concept for each folder, and what is wrong with folders.

    Args:
        data: a section `{folder: photos, pictures: 1}` of an axis `concept` becomes a concept for
            each folder in `photos`, of which the first pictures are trained on, and all are what
            results are compared with. What is no grid is left for others to tell of.
    """
    full: dict[str, Any] = dict(data)
    mistakes: list[Mistake] = []
    blocks = full.get("grid")
    if not isinstance(blocks, list):
        return full, mistakes
    full["grid"] = list(blocks)
    for number, block in enumerate(blocks):
        if not isinstance(block, dict) or not isinstance(block.get("concept"), list):
            continue
        concepts: list[Any] = []
        for place, one in enumerate(block["concept"]):
            if not isinstance(one, dict) or "folder" not in one:
                concepts.append(one)
                continue
            path: KeyPath = ("grid", number, "concept", place)
            try:
                concepts += _concepts_of(one)
            except UserError as error:
                text = "; ".join(part for part in (error.what, error.do) if part)
                mistakes.append(Mistake(path, text))
        full["grid"][number] = {**block, "concept": concepts}
    return full, mistakes


def class_of(name: str, told: Mapping[str, str]) -> str:
    """Return a folder's class: what the data set says, else its name without numbers and `_`."""
    return told.get(name) or " ".join(re.sub(r"\d+$", "", name).replace("_", " ").split()) or name


def _concepts_of(section: Mapping[str, Any]) -> list[dict[str, Any]]:
    if unknown := [key for key in section if key not in KEYS]:
        raise UserError(f"a folder of concepts has no {unknown[0]}", do=f"it takes {KEYS[1]} alone")
    count = section.get("pictures")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
        raise UserError(f"pictures must be a number from 1 on, got {count!r}")
    folder = expanded(str(section["folder"]))
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}", do="put a folder with pictures there for each concept"
        )
    told = _classes(folder / CLASSES)
    found = [
        _concept(one, told, count)
        for one in sorted(folder.iterdir())
        if one.is_dir() and not one.name.startswith((".", "_"))
    ]
    if not found:
        raise UserError(
            f"no folder is in {folder}", do="put a folder with pictures there for each concept"
        )
    return found


def _concept(folder: Path, told: Mapping[str, str], count: int | None) -> dict[str, Any]:
    pictures = [str(path) for path in pictures_in(folder, "concept.images")]
    if count is not None and count > len(pictures):
        raise UserError(
            f"{count} pictures are to be learned from, and {folder} has {len(pictures)}",
            do="add pictures, or lower `pictures`",
        )
    return {
        "name": folder.name,
        "images": pictures[:count],
        "real": pictures,
        "class": class_of(folder.name, told),
    }


def _classes(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    found = (re.fullmatch(r"\s*(\w[\w-]*)\s*,\s*([\w -]+?)\s*", line) for line in lines)
    return {match[1]: match[2] for match in found if match}
