"""Pictures of a comparison for its page: small, and no more than a page can carry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tlora_cli.comparison.cells import Arm, Cell
from tlora_cli.comparison.summary import Summary
from tlora_cli.comparison.tasks import task_of
from tlora_cli.evaluation.pictures_table import PICTURES_TABLE, read_pictures_table
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pages.data_urls import thumbnail_url
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.photos.finding import find_images

KeyT = TypeVar("KeyT")

MAX_PICTURES = 480
"""Pictures on the whole page: about 4 MB."""
BASE_ROWS, SUITE_ROWS = 2, 6
"""Pictures of the base prompt and of other prompts, of each arm and concept."""
SIDE = 160
"""Longest side in pixels."""


@dataclass(frozen=True)
class Sheet:
    """One concept: the same prompts and seeds, arm by arm.

    Attributes:
        concept: its name.
        seed: of the training.
        training: the training picture as a data URL; empty if it can't be read.
        arms: the columns.
        rows: prompt -> a data URL for each arm, empty where there is no picture.
    """

    concept: str
    seed: int
    training: str
    arms: list[Arm]
    rows: list[tuple[str, list[str]]]


def sheets(summary: Summary) -> tuple[list[Sheet], str]:
    """Return a sheet for each concept, and what was left out, in words; empty if nothing was.

    The first seed of each concept is shown.
    """
    by_concept: dict[str, list[Cell]] = {}
    for cell, _ in summary.finished:
        by_concept.setdefault(cell.concept, []).append(cell)
    columns = max((len({c.arm for c in cells}) for cells in by_concept.values()), default=0)
    rows = BASE_ROWS + SUITE_ROWS
    left_out = []
    while rows > 2 and columns * rows * len(by_concept) > MAX_PICTURES:
        rows -= 1
    shown = list(by_concept)
    if columns * rows * len(shown) > MAX_PICTURES:
        shown = shown[: max(1, MAX_PICTURES // (columns * rows))]
        left_out.append(f"{len(by_concept) - len(shown)} of {len(by_concept)} concepts")
    most = MAX_PICTURES // rows
    if columns > most:
        left_out.append(f"{columns - most} of {columns} arms")
    made = [_sheet(summary, name, by_concept[name], rows, most) for name in shown]
    text = f"Left out to keep the page small: {', '.join(left_out)}." if left_out else ""
    return made, text


def _sheet(summary: Summary, concept: str, cells: Sequence[Cell], rows: int, most: int) -> Sheet:
    seed = cells[0].seed
    own = [cell for cell in cells if cell.seed == seed][:most]
    files = [_pictures(summary, cell) for cell in own]
    keys = list(dict.fromkeys(key for found in files for key in found))
    base = [key for key in keys if key[0] == "base"][: min(BASE_ROWS, max(1, rows // 3))]
    suite = [key for key in keys if key[0] == "suite" and key[2] == 0]
    chosen = [*base, *_spread(suite, rows - len(base))]
    table = [(key[1], [_thumbnail(found.get(key)) for found in files]) for key in chosen]
    return Sheet(concept, seed, _training_picture(own[0]), [cell.arm for cell in own], table)


def _spread(keys: Sequence[KeyT], count: int) -> list[KeyT]:
    """Return at most `count` of a list, from all its parts."""
    if len(keys) <= count:
        return list(keys)
    return [keys[number * len(keys) // count] for number in range(count)]


def _pictures(summary: Summary, cell: Cell) -> dict[tuple[str, str, int], Path]:
    """Return a cell's pictures by group, prompt and turn (0 for the first of a prompt)."""
    folder = task_of(cell, summary.plan).evaluation
    if not (folder / PICTURES_TABLE).exists():
        return {}
    found: dict[tuple[str, str, int], Path] = {}
    for row in read_pictures_table(folder):
        turn = 0
        while (row["group"], row["prompt"], turn) in found:
            turn += 1
        found[row["group"], row["prompt"], turn] = folder / row["file"]
    return found


def _training_picture(cell: Cell) -> str:
    spec = cell.images if isinstance(cell.images, str) else cell.images[0]
    try:
        first, *_ = find_images(spec, "concept.images")
    except UserError:
        return ""
    return _thumbnail(first)


def _thumbnail(file: Path | None) -> str:
    """Return a small picture as a data URL; empty if there is none."""
    if file is None:
        return ""
    try:
        picture = read_picture(file, str(file), "RGB")
    except UserError:
        return ""
    return thumbnail_url(picture, SIDE)
