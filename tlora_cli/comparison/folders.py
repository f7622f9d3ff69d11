"""Output folders of many runs: used only if new, empty, or marked as such a folder."""

from __future__ import annotations

from pathlib import Path

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import LOCK, TEMPORARY


def check_folder(folder: Path, mark: str, where: str) -> None:
    """Refuse a folder that holds something else.

    Args:
        folder: of the output.
        mark: name of the file that stands in a folder of this kind.
        where: what named the folder, for the message.

    Raises:
        UserError: if it does.
    """
    if not folder.exists() or (folder / mark).exists():
        return
    there = list(folder.iterdir()) if folder.is_dir() else [folder]
    if any(not path.name.startswith((LOCK, TEMPORARY)) for path in there):
        raise UserError(
            f"{folder} is not empty and is left as it is", where=where, do="name a new folder"
        )
