"""A photo, and what was said of it so far: kept in a file, so that a closed tab loses nothing."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import remove_folder, write_text
from tlora_cli.foundation.pictures import read_alpha, read_picture, save_png
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.photos.masks.files import MaskFiles, mask_files
from tlora_cli.recipe.named import PAPER, PHOTO
from tlora_cli.training.run_folder import RunFolder

STUDIO, RUNS = Path("studio"), Path("runs")
"""Folders of drafts and of runs, in the folder that the studio was started in."""
SMALLEST = 16
"""Least side of the square that is learned, in pixels."""
WHERE = "photo"


@dataclass
class Draft:
    """A photo, and what was said of it.

    Attributes:
        name: of the folder, the recipe and the run.
        original: name of the file that was given, in the folder.
        width, height: of the photo, upright.
        crop: left, top and side of the square that is learned, in pixels.
        class_name: what it shows.
        base: base model; empty if none was chosen yet.
        card: of which size to plan for; empty for this machine.
        recipe: the named recipe.
        steps: of the training; None for the usual number.
        judged: whether checkpoints are scored while it trains, and the best one is kept.
        painted: whether the mask was corrected by hand.
        mask: how the mask was found: `by`, `coverage`, `doubt`; empty before.
        plan: what was said last of what will happen, and of which wishes; empty before.
        run: folder of the run; empty before it began.
        recipe_file: its recipe.
    """

    name: str
    original: str
    width: int
    height: int
    crop: tuple[int, int, int]
    class_name: str = ""
    base: str = ""
    card: str = ""
    recipe: str = PHOTO
    steps: int | None = None
    judged: bool = True
    painted: bool = False
    mask: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    run: str = ""
    recipe_file: str = ""

    @property
    def folder(self) -> Path:
        """Folder of the draft."""
        return STUDIO / self.name

    @property
    def photo(self) -> Path:
        """The square that is learned."""
        return self.folder / "photo.png"

    @property
    def found_mask(self) -> MaskFiles:
        """The files of the mask that was found."""
        [files] = mask_files([self.photo], self.folder / "found")
        return files

    @property
    def own_mask(self) -> Path:
        """The mask as it was corrected by hand."""
        return self.folder / "mask.png"

    @property
    def shown_mask(self) -> Path | None:
        """The mask that counts, or None."""
        file = self.own_mask if self.painted else self.found_mask.mask
        return file if file.is_file() else None

    @property
    def uses_mask(self) -> bool:
        """Whether the recipe learns the subject alone."""
        return self.recipe != PAPER

    @property
    def wishes(self) -> str:
        """A digest of all that the plan depends on."""
        others = ("name", "original", "width", "height", "plan", "run", "recipe_file")
        said = {key: value for key, value in asdict(self).items() if key not in others}
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]

    def save(self) -> None:
        """Write it down."""
        write_text(self.folder / "draft.json", json.dumps(asdict(self), indent=1) + "\n")

    def set_crop(self, left: int, top: int, side: int) -> None:
        """Take another square of the photo; what was found on the old one is dropped.

        Raises:
            UserError: if it lies outside of the photo.
        """
        inside = 0 <= left <= self.width - side and 0 <= top <= self.height - side
        if not inside or side < min(SMALLEST, self.width, self.height):
            raise UserError(
                f"the square {left}, {top}, {side} does not lie within the photo, "
                f"{self.width} x {self.height}",
                where=WHERE,
                do="move it onto the photo",
            )
        self.crop = (left, top, side)
        self.forget_mask()
        write_square(self.folder / self.original, self.photo, self.crop)

    def forget_mask(self) -> None:
        """Drop the mask, found or painted."""
        for file in (self.found_mask.mask, self.found_mask.overlay, self.own_mask):
            file.unlink(missing_ok=True)
        self.mask, self.painted = {}, False

    def paint(self, painted: Image.Image, notes: dict[str, Any]) -> None:
        """Take a mask that was corrected by hand.

        Args:
            painted: L; it is made as large as the photo.
            notes: what is said of it.
        """
        side = self.crop[2]
        if painted.size != (side, side):
            painted = painted.resize((side, side), Image.Resampling.BICUBIC)
        save_png(painted, self.own_mask)
        self.painted, self.mask = True, notes


def write_square(photo: Path, square: Path, crop: tuple[int, int, int]) -> None:
    """Write a square of a photo, upright and in sRGB, with its transparency.

    Raises:
        UserError: if the photo can't be read.
    """
    left, top, side = crop
    box = (left, top, left + side, top + side)
    picture = read_picture(photo, WHERE, "RGB").crop(box)
    alpha = read_alpha(photo, WHERE)
    if alpha is not None:
        picture.putalpha(alpha.crop(box))
    save_png(picture, square)


def new_draft(file: Path, name: str) -> Draft:
    """Take a picture that was read without an error into a folder of its own.

    Args:
        file: it is moved.
        name: that it was given under; its stem names all that comes of it.
    """
    picture = read_picture(file, WHERE, "RGB")
    side = min(picture.size)
    if side < SMALLEST:
        raise UserError(
            f"the photo is {picture.width} x {picture.height} pixels, too small to learn from",
            where=name,
            do=f"take one of at least {SMALLEST} pixels each way",
        )
    crop = ((picture.width - side) // 2, (picture.height - side) // 2, side)
    free = _free_name(Path(name).stem)
    suffix = re.sub(r"[^a-z0-9]", "", Path(name).suffix.lower())[:5] or "picture"
    draft = Draft(free, f"original.{suffix}", picture.width, picture.height, crop)
    draft.folder.mkdir(parents=True)
    try:
        shutil.move(file, draft.folder / draft.original)
        write_square(draft.folder / draft.original, draft.photo, crop)
        draft.save()
    except BaseException:
        remove_folder(draft.folder)
        raise
    return draft


def copy_draft(draft: Draft) -> Draft:
    """Take the same photo again, with all that was said of it, for another run."""
    free = _free_name(draft.name)
    copy = replace(draft, name=free, plan={}, run="", recipe_file="")
    copy.folder.mkdir(parents=True)
    files = (
        draft.folder / draft.original,
        draft.photo,
        draft.own_mask,
        draft.found_mask.mask,
        draft.found_mask.overlay,
    )
    for file in files:
        if file.is_file():
            target = copy.folder / file.relative_to(draft.folder)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)
    copy.save()
    return copy


def _free_name(stem: str) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")[:40].strip("-") or "photo"
    name, number = slug, 1
    while any(_taken(name)):
        number += 1
        name = f"{slug}-{number}"
    return name


def _taken(name: str) -> Iterator[bool]:
    yield (STUDIO / name).exists()
    yield Path(f"{name}.yaml").exists()
    yield RunFolder(RUNS / name).holds_run()


def find_draft(name: str) -> Draft | None:
    """Return the draft of a name; None if there is none, or its file is damaged."""
    if name not in draft_names():
        return None
    try:
        said = parse_json((STUDIO / name / "draft.json").read_text(encoding="utf-8"))
        crop = tuple(int(number) for number in said.pop("crop"))
        return Draft(**{**said, "name": name}, crop=crop)  # type: ignore[arg-type]
    except (OSError, ValueError, TypeError, AttributeError, KeyError):
        return None


@contextmanager
def changing(name: str) -> Iterator[Draft]:
    """Yield a draft to be changed, and write it down; one at a time, whichever tab asks.

    Raises:
        UserError: if there is none of that name.
    """
    with _CHANGING:
        draft = find_draft(name)
        if draft is None:
            raise UserError(f"there is no photo {name!r} here", do="load the page again")
        yield draft
        draft.save()


_CHANGING = threading.RLock()


def draft_names() -> list[str]:
    """Return the names of all drafts, newest first."""
    try:
        files = list(STUDIO.glob("*/draft.json"))
        return [file.parent.name for file in sorted(files, key=lambda one: -one.stat().st_mtime)]
    except OSError:
        return []
