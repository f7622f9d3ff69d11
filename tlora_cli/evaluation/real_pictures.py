"""The pictures that an evaluation is given: those of the concept, and what S is set by."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tlora_cli.evaluation.generated_images import opened, own_prompt, said_prompts
from tlora_cli.evaluation.success import Captioned, Pairs
from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.finding import find_images
from tlora_cli.photos.training_images import load_training_images

PROMPTS = "prompts.json"
"""File in a folder of captioned pictures: picture name -> prompt."""


@dataclass(frozen=True)
class PairSettings:
    """The pairs, or numbers, that set the thresholds of S; nothing where the user gave nothing.

    Attributes:
        same: further photographs of the concept: files, folders, names of a bundle's pictures.
        others: photographs of other things, likewise.
        captioned: folder of pictures that show their prompts.
        likeness: least likeness.
        agreement: least agreement.
    """

    same: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    captioned: Path | None = None
    likeness: float | None = None
    agreement: float | None = None

    @property
    def given(self) -> bool:
        """Whether the user asked for S."""
        return self != PairSettings()


def training_pictures(spec: str | list[str] | None) -> list[Image.Image]:
    """Return the real pictures: those given, or those of the adapter's recipe.

    Raises:
        UserError: if they are not known or can't be read.
    """
    if spec is None:
        raise UserError(
            "the adapter does not say which pictures it was trained on",
            where="--images",
            do="name them: --images dog.jpg",
        )
    return [as_trained(path) for path in find_images(spec, "--images")]


def as_trained(path: Path) -> Image.Image:
    """Return a picture upright and cropped to its middle square, as for training."""
    with opened(path) as picture:
        side = min(picture.size)
    [image] = load_training_images(str(path), None, max(8, side - side % 8))
    levels = ((image.pixels / 2 + 0.5) * 255).round().byte()
    return Image.fromarray(levels.permute(1, 2, 0).numpy())


def read_pairs(
    settings: PairSettings, training: Sequence[Image.Image], spell: Callable[[str], str]
) -> Pairs:
    """Return the pairs that the user gave; no photograph makes a pair with itself.

    Args:
        settings: what was given.
        training: the real pictures.
        spell: prompt -> text for the encoder that reads it.

    Raises:
        UserError: if something can't be read, or is the concept and another thing at once.
    """
    photographs = {_pixels(one): one for one in training}
    for one in _all(settings.same, "--same"):
        photographs.setdefault(_pixels(one), one)
    others = {_pixels(one): one for one in _all(settings.others, "--others")}
    if twice := photographs.keys() & others.keys():
        raise UserError(
            f"photographs of the concept are among those of other things: {len(twice)}",
            where="--others",
            do="take them out of --others, or out of --images and --same",
        )
    captioned: Captioned = ()
    if settings.captioned is not None:
        captioned = [(one, spell(text)) for one, text in _captioned(settings.captioned)]
    return Pairs(
        list(photographs.values()),
        list(others.values()),
        captioned,
        settings.likeness,
        settings.agreement,
    )


def lacking(pairs: Pairs, reads_text: bool, draws: bool) -> list[str]:
    """Return what is needed for S and not there, in words; empty if nothing is missing.

    Args:
        pairs: what the user gave.
        reads_text: whether an encoder reads text.
        draws: whether captioned pictures can be drawn by the base model.
    """
    need = []
    if pairs.likeness is None:
        likeness = []
        if len(pairs.photographs) < 2:
            likeness.append("--same, other photographs of the concept")
        if not pairs.others:
            likeness.append("--others, photographs of other things of its class")
        if likeness:
            need.append(f"{', and '.join(likeness)} (or --least-likeness)")
    if not reads_text:
        need.append("--metric clip, an encoder that reads prompts")
    if pairs.agreement is None and not pairs.captioned and not draws:
        need.append("--captioned, pictures that show their prompts (or --least-agreement)")
    return need


def _all(specs: Sequence[str], option: str) -> Iterator[Image.Image]:
    for spec in specs:
        yield from map(as_trained, find_images(spec, option))


def _pixels(picture: Image.Image) -> tuple[tuple[int, int], bytes]:
    return picture.size, picture.tobytes()


def _captioned(folder: Path) -> Iterator[tuple[Image.Image, str]]:
    table = folder / PROMPTS
    said = said_prompts(table) if table.exists() else {}
    for file in find_images(str(folder), "--captioned"):
        prompt = said.get(file.name) or own_prompt(file)
        if not prompt:
            raise UserError(
                "the picture's prompt is not known",
                where=str(file),
                do=f'write it into {table}: {{"{file.name}": "a dog in the snow"}}',
            )
        yield as_trained(file), prompt
