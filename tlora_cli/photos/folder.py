"""The pictures of a folder; what else lies in it is passed over by its name, told, or refused."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from tlora_cli.foundation.errors import UserError

EXTENSIONS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"),
    *(".avif", ".heic", ".heif", ".hif"),
)
"""Names that count as pictures in a folder; a file named by itself may be called anything."""
UNREAD = {
    *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf"),
    *(".raw", ".rw2", ".srw", ".x3f", ".ai", ".eps", ".exr", ".hdr", ".ico", ".jp2", ".jxl"),
    *(".kra", ".pdf", ".psb", ".psd", ".svg", ".tga", ".xcf"),
}
"""Names of pictures that nothing here reads: of cameras, of editors, and rare ones."""
BESIDE = {
    *("", ".aae", ".caption", ".csv", ".db", ".html", ".ini", ".json", ".log", ".md", ".npz"),
    *(".py", ".sh", ".safetensors", ".txt", ".xml", ".xmp", ".yaml", ".yml"),
}
"""Names of files that lie beside pictures and are none; nothing is said of them."""
SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")
"""First bytes of pictures."""
APPLE_DOUBLE = "._"
"""Start of the names under which macOS keeps what other disks can't, beside each file."""
NAMED = 4
"""Files that a message names."""


def pictures_in(folder: Path, key: str) -> list[Path]:
    """Return the files of a folder that count as pictures, in the order of their names.

    What else lies there is told by a warning, unless its name says that it is no picture.

    Raises:
        UserError: if there is none, or a picture lies there that would be passed over.
        OSError: if the folder can't be read.
    """
    there = sorted(folder.iterdir())
    found = [path for path in there if _counts(path)]
    stems = {path.stem for path in found}
    others = [path for path in there if path not in found and not path.is_dir()]
    unread = [path for path in others if not _hidden(path) and _is_picture(path)]
    copies = [path for path in unread if path.stem in stems and path.suffix.lower() in UNREAD]
    if missed := [path for path in unread if path not in copies]:
        raise UserError(
            f"{_several(len(missed), 'picture')} in {folder} would be passed over: "
            f"{_names(missed)}",
            where=key,
            do="save a copy as JPEG or PNG with that ending, or move what is not meant elsewhere",
        )
    if not found:
        raise UserError(
            f"no picture is in the folder {folder}",
            where=key,
            do=f"put pictures there ({' '.join(EXTENSIONS)}; subfolders are not searched)",
        )
    _tell(folder, there, copies, [path for path in others if path not in unread])
    return found


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _counts(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not _hidden(path) and not path.is_dir()


def _is_picture(path: Path) -> bool:
    """Whether a file whose name is no picture's is one, by its name or its first bytes."""
    suffix = path.suffix.lower()
    if suffix in UNREAD:
        return True
    if suffix in BESIDE - {""}:
        return False
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    still = start[4:8] == b"ftyp" and start[8:12] in _STILL
    return still or start.startswith(SIGNATURES) or (start[:4], start[8:]) == (b"RIFF", b"WEBP")


_STILL = (b"heic", b"heix", b"mif1", b"msf1", b"avif")


def _tell(
    folder: Path, there: Sequence[Path], copies: Sequence[Path], others: Sequence[Path]
) -> None:
    """Warn of what is left out of a folder."""
    hidden = [
        path
        for path in others
        if _hidden(path)
        and path.suffix.lower() in EXTENSIONS
        and not path.name.startswith(APPLE_DOUBLE)
    ]
    strange = [p for p in others if not _hidden(p) and p.suffix.lower() not in BESIDE]
    below = [path for path in there if path.is_dir() and not _hidden(path) and _has_picture(path)]
    said = [
        (copies, "of which a picture with the same name is used"),
        (hidden, "which are hidden"),
        (strange, "which are no pictures"),
        (below, "which are folders with pictures; subfolders are not searched"),
    ]
    for paths, why in said:
        if paths:
            warnings.warn(f"{folder}: {_names(paths)} left out, {why}", stacklevel=4)


def _has_picture(folder: Path) -> bool:
    try:
        return any(_counts(path) for path in folder.iterdir())
    except OSError:
        return False


def _several(number: int, what: str) -> str:
    return f"1 {what}" if number == 1 else f"{number} {what}s"


def _names(paths: Sequence[Path]) -> str:
    more = f" and {len(paths) - NAMED} more" if len(paths) > NAMED else ""
    return ", ".join(path.name for path in paths[:NAMED]) + more
