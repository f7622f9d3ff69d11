"""The photos of a batch: a folder of them, or a list with their classes and names."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.foundation.bundled import bundle_of_picture
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import expanded
from tlora_cli.photos.finding import name_of
from tlora_cli.photos.folder import pictures_in
from tlora_cli.recipe.reading import read_text

PHOTO, CLASS, NAME = "photo", "class", "name"
COLUMNS = (PHOTO, CLASS, NAME)
_Row = tuple[int | None, str, str, str]
"""Line, photo, class and name."""
LIST = ".csv"
"""Ending of a list's name."""


@dataclass(frozen=True)
class Photo:
    """A photo to train on.

    Attributes:
        file: its name, as a recipe has it.
        class_name: what it shows, in a word.
        name: of its folder, unlike all others'.
    """

    file: str
    class_name: str
    name: str


def read_photos(source: Path, class_name: str | None) -> list[Photo]:
    """Return the photos of a folder, or of a list. Whether they can be read is looked at later.

    Args:
        source: a folder, all of whose pictures are taken in the order of their names; or a CSV
            file with the columns photo, class and name, of which class and name may be left out
            or empty. Photos are named as seen from the list's folder.
        class_name: what all show whose class isn't said.

    Raises:
        UserError: naming every mistake of the list; if there is no photo; if a class isn't said.
    """
    known = (class_name or "").strip()
    rows: list[_Row]
    if source.is_dir():
        rows = [(None, str(file), known, "") for file in pictures_in(source, "FOLDER")]
    elif source.suffix.lower() == LIST:
        rows = list(_rows(source, known))
    else:
        raise UserError(
            "a folder of photos, or a list of them, is needed",
            where=str(source),
            do=f"name a folder, or a {LIST} file with the columns {', '.join(COLUMNS)}",
        )
    if not rows:
        raise UserError("there is no photo", where=str(source), do="put at least one there")
    return _named(rows, source)


def _rows(file: Path, class_name: str) -> Iterator[_Row]:
    """Yield line, photo, class and name of each row of a list."""
    text = read_text(file, "list of photos")
    if "\0" in text:
        raise UserError("the list holds a zero byte, so it is no text", str(file), "save it as CSV")
    reader = csv.reader(io.StringIO(text, newline=None), delimiter=_delimiter(text))
    try:
        lines = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise UserError(
            f"the list can't be read as CSV: {error}",
            where=f"{file}, line {reader.line_num}",
            do="save it as CSV from a spreadsheet, or mend the line",
        ) from error
    heads = [head.strip().lower() for head in (lines[0][1] if lines else [])]
    if PHOTO not in heads or set(heads) - set(COLUMNS) or len(set(heads)) < len(heads):
        raise UserError(
            f"the first line must name the columns, and is {','.join(heads) or 'empty'}",
            where=f"{file}, line 1",
            do=f"write {','.join(COLUMNS)}; {CLASS} and {NAME} may be left out",
        )
    for number, row in lines[1:]:
        if not any(cell.strip() for cell in row):
            continue
        cells = dict(zip(heads, (cell.strip() for cell in row), strict=False))
        photo = cells.get(PHOTO, "") if len(row) <= len(heads) else ""
        if photo and not bundle_of_picture(photo):
            photo = str(file.parent / expanded(photo))
        yield number, photo, cells.get(CLASS) or class_name, cells.get(NAME, "")


def _delimiter(text: str) -> str:
    """Return what stands between columns: spreadsheets of some countries write semicolons."""
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _named(rows: list[_Row], source: Path) -> list[Photo]:
    """Return the photos, each under a name of its own.

    Raises:
        UserError: naming every mistake.
    """
    wrong: list[str] = []
    given: dict[str, int | None] = {}
    for line, photo, class_name, name in rows:
        place = f"line {line}: " if line else ""
        if not photo:
            wrong.append(f"{place}no photo is named, or there are more cells than columns")
        elif not class_name:
            wrong.append(f"{place}nothing says what {photo} shows")
        if name and not re.fullmatch(r"\w[\w.-]*", name):
            wrong.append(f"{place}the name {name!r} may have letters, digits, . - and _ alone")
        if name and name in given:
            wrong.append(f"{place}the name {name} is that of line {given[name]}")
        given[name] = line
    if wrong and source.is_dir():
        raise UserError("nothing says what the photos show", do="add --class dog, say")
    if wrong:
        told = "\n".join(f"  {one}" for one in wrong[:20])
        count = "1 mistake" if len(wrong) == 1 else f"{len(wrong)} mistakes"
        raise UserError(
            f"{count} in {source}\n{told}", do="mend the list; --class says what all others show"
        )
    taken, photos = {name for name in given if name}, []
    for _, photo, class_name, name in rows:
        if not name:
            stem, number = name_of(photo), 1
            name = stem
            while name in taken:
                number += 1
                name = f"{stem}-{number}"
            taken.add(name)
        photos.append(Photo(photo, class_name, name))
    return photos
