"""The pictures of an evaluation: which are needed, which are there, and drawing the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from tlora_cli.evaluation.image_requests import ImageRequest
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import remove_leftovers, write_text
from tlora_cli.foundation.pictures import open_picture, picture_settings, read_picture
from tlora_cli.foundation.prompts import sampling_prompt
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.sampling.draw import Job, write_picture
from tlora_cli.sampling.session import SamplingSession


@dataclass(frozen=True)
class PlannedImage:
    """One picture of an evaluation.

    Attributes:
        group: as in `image_requests.ImageRequest`.
        prompt: with V* for the concept.
        text: with the concept filled in: what is drawn.
        seed: of its noise.
        file: where it lies.
    """

    group: str
    prompt: str
    text: str
    seed: int
    file: Path

    def open(self) -> Image.Image:
        """Return the picture."""
        return read_picture(self.file, str(self.file), "RGB")


def plan_images(folder: Path, requests: Sequence[ImageRequest], concept: str) -> list[PlannedImage]:
    """Return where each picture of an evaluation lies.

    Args:
        folder: of the pictures; each group has a folder of its own.
        requests: what to draw.
        concept: words for V*.
    """
    numbers: dict[str, dict[str, int]] = {}
    planned = []
    for request in requests:
        known = numbers.setdefault(request.group, {})
        number = known.setdefault(request.prompt, len(known))
        file = folder / request.group / f"{number:03d}_seed{request.seed}.png"
        text = sampling_prompt(request.prompt, concept)
        planned.append(PlannedImage(request.group, request.prompt, text, request.seed, file))
    return planned


def missing(planned: Sequence[PlannedImage]) -> list[PlannedImage]:
    """Return the pictures that are not there, or can't be read."""
    return [image for image in planned if not _whole(image.file)]


def _whole(file: Path) -> bool:
    if not file.exists():
        return False
    try:
        read_picture(file, str(file), "RGB")
    except UserError:
        file.unlink()  # half a picture, from a disk that failed: it is drawn again
        return False
    return True


def draw_missing(
    session: SamplingSession,
    planned: Sequence[PlannedImage],
    batch_size: int,
    done: Callable[[PlannedImage], None],
) -> None:
    """Draw the pictures that are not there; a kill loses at most one batch.

    Args:
        session: of the adapter.
        planned: all pictures.
        batch_size: drawn together.
        done: called after each picture.
    """
    gone = set(missing(planned))
    batches = [batch for batch in _batches(planned, batch_size) if gone.intersection(batch)]
    if not batches:
        return
    session.prepare(list(dict.fromkeys(image.text for batch in batches for image in batch)))
    for batch in batches:
        scale = 0.0 if batch[0].group.endswith("_without") else 1.0
        jobs = [Job(image.text, image.seed) for image in batch]
        for image, (job, picture) in zip(batch, session.draw(jobs, scale, batch_size), strict=True):
            if image in gone:
                about = session.describe(batch_size=batch_size)
                write_picture(image.file, job, picture, session.settings, about)
                done(image)


def _batches(planned: Sequence[PlannedImage], size: int) -> Iterator[Sequence[PlannedImage]]:
    """Yield all pictures in batches of one group.

    Batches are drawn as in an undisturbed run, even if part of one is there already: in a batch of
    another size the last bits of a picture may differ.
    """
    for group in dict.fromkeys(image.group for image in planned):
        own = [image for image in planned if image.group == group]
        yield from (own[first : first + size] for first in range(0, len(own), size))


def claim_folder(folder: Path, origin: dict[str, Any]) -> None:
    """Make the folder this evaluation's own, or find that it is.

    Args:
        folder: of the evaluation.
        origin: all that its pictures depend on.

    Raises:
        UserError: if the folder holds something else.
    """
    stamp = folder / "evaluation.json"
    if folder.is_dir():
        remove_leftovers(folder)  # a kill before the stamp was whole must not block the folder
    text = json.dumps(origin, indent=2, sort_keys=True) + "\n"
    if stamp.exists():
        if stamp.read_text(encoding="utf-8") != text:
            raise UserError(
                f"{folder} holds another evaluation",
                where="--output",
                do="name a new folder, or remove this one",
            )
    elif folder.exists() and any(folder.iterdir()):
        raise UserError(
            f"{folder} is not empty and is left as it is",
            where="--output",
            do="name a new folder",
        )
    write_text(stamp, text)


def digest(file: Path) -> str:
    """Return what tells a file's content apart."""
    return hashlib.sha256(file.read_bytes()).hexdigest()[:16]


def given_pictures(folder: Path, prompts: Path | None) -> Iterator[tuple[Path, str]]:
    """Yield the pictures of a folder and their prompts.

    Args:
        folder: with PNG files; those that tlora has drawn know their prompts.
        prompts: JSON of file name -> prompt, for others.

    Raises:
        UserError: if there are none, or a picture's prompt is not known.
    """
    files = sorted(folder.glob("*.png"))
    if not files:
        raise UserError("the folder holds no PNG files", str(folder), "check --pictures")
    said = {} if prompts is None else said_prompts(prompts)
    for file in files:
        prompt = said.get(file.name) or own_prompt(file)
        if not prompt:
            raise UserError(
                "the picture's prompt is not known",
                where=str(file),
                do="pass --prompts-of, a JSON file of picture name -> prompt",
            )
        yield file, prompt


def opened(file: Path) -> Image.Image:
    """Return a picture, not yet decoded.

    Raises:
        UserError: if it is none.
    """
    try:
        return open_picture(file)
    except (OSError, UnidentifiedImageError) as error:
        raise UserError(
            "the picture can't be read", where=str(file), do="remove it, or save it anew"
        ) from error


def said_prompts(prompts: Path) -> dict[str, str]:
    """Return the table of a JSON file: picture name -> prompt.

    Raises:
        UserError: if it can't be read, or is no such table.
    """
    try:
        said = parse_json(prompts.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"the prompts can't be read: {error}", str(prompts), "check the file"
        ) from error
    if not (isinstance(said, dict) and all(isinstance(one, str) for one in said.values())):
        raise UserError(
            "the file is no table of prompts", str(prompts), 'write {"picture.png": "prompt", ...}'
        )
    return said


def own_prompt(file: Path) -> str | None:
    """Return the prompt that tlora wrote into a picture, or None."""
    found = picture_settings(file).get("prompt")
    return found if isinstance(found, str) else None
