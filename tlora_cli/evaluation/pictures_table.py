"""`pictures.csv` of an evaluation: a row for each picture, with what was asked for and scores."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import is_regular

PICTURES_TABLE = "pictures.csv"
COLUMNS = ("group", "prompt", "file")
"""Those that `tlora evaluate` writes for every picture; others are scores."""


def read_pictures_table(folder: Path, columns: Sequence[str] = COLUMNS) -> list[dict[str, str]]:
    """Return the rows, each with a text in every column.

    Args:
        folder: of the evaluation.
        columns: those that must be there.

    Raises:
        UserError: if there is no such table, or it is damaged.
    """
    file = folder / PICTURES_TABLE
    try:
        if not is_regular(file):
            raise FileNotFoundError("there is no such file")
        rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"), newline="")))
        for number, row in enumerate(rows, 1):
            if None in row or None in row.values() or not all(one in row for one in columns):
                raise ValueError(f"row {number} is not whole")
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(
            f"the evaluation's {PICTURES_TABLE} can't be read: {error}",
            where=str(file),
            do="run the same `tlora evaluate` again",
        ) from error
    return rows
