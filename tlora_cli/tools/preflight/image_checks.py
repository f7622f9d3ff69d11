"""A look at the training pictures and masks, each by itself."""

from __future__ import annotations

import hashlib
import math
import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import open_picture, picture_size, read_alpha, read_picture
from tlora_cli.photos.finding import AUTO, find_images, match_masks
from tlora_cli.photos.framing import LONGEST, WHOLE, Frame, Size
from tlora_cli.photos.masks.finder import ALPHA, MaskFinder
from tlora_cli.photos.training_images import TrainingImage, load_training_image
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.known_world import another_base, strangers
from tlora_cli.tools.preflight.findings import Finding, of_error, ok, problem, warning
from tlora_cli.training.shape import frame_of, shape_problem, training_sizes

DARK, BRIGHT = 0.12, 0.93
"""Mean brightness, of 0 to 1, beyond which a picture shows little."""
FLAT = 0.03
"""Standard deviation of the brightness under which a picture is nearly of one color."""
CUT = 0.4
"""Share of a picture outside of what is trained on from which on it is a warning."""
FAINT_COLOR = 0.01
"""Mean difference between the color channels under which a picture is gray."""
THIN_MASK = 0.01
"""Share of a mask that is white under which it is hardly more than nothing."""

_IMAGES, _MASKS = "concept.images", "concept.masks"


@dataclass(frozen=True)
class Traits:
    """Facts of a picture that need no knowledge of what it shows.

    Attributes:
        width, height: in pixels.
        part: width and height of what is trained on, before resizing.
        brightness: mean of that, 0 to 1.
        contrast: standard deviation of its brightness.
        gray: whether it has no colors.
        transparent: whether parts are transparent; they become white.
    """

    width: int
    height: int
    part: Size
    brightness: float
    contrast: float
    gray: bool
    transparent: bool

    @property
    def cut(self) -> float:
        """Share of the picture outside of what is trained on."""
        return 1 - self.part[0] * self.part[1] / (self.width * self.height)

    @property
    def side(self) -> int:
        """Side of a square of as many pixels as are trained on."""
        return math.isqrt(self.part[0] * self.part[1])

    @property
    def size(self) -> str:
        """Return width and height in words."""
        return f"{self.width} x {self.height}"


def traits_of(image: TrainingImage) -> Traits:
    """Return the traits of a picture that was read."""
    colors = (image.pixels + 1) / 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        with open_picture(image.path) as opened:
            transparent = opened.has_transparency_data
    width, height = picture_size(image.path, _IMAGES)
    light = colors.mean(0)
    spread = float((colors.amax(0) - colors.amin(0)).mean())
    return Traits(
        width,
        height,
        image.part,
        float(light.mean()),
        float(light.std()),
        spread < FAINT_COLOR,
        transparent,
    )


def used(traits: Traits, frame: Frame) -> str:
    """Return what of a picture is trained on, in words."""
    if frame.multiple is None:
        return f"{traits.size}, of which the center square is used"
    width, height = frame.size((traits.width, traits.height))
    return f"{traits.size}, trained in its own shape, at {width} x {height}"


def advice(name: str, traits: Traits, frame: Frame) -> Iterator[Finding]:
    """Yield what may be wrong with a picture.

    Args:
        name: what messages call it.
        traits: of the picture.
        frame: what of it is trained on, and how large.
    """
    width, height = frame.size((traits.width, traits.height))
    if traits.part[0] < width or traits.part[1] < height:
        yield warning(
            "pictures",
            f"{name} is {traits.size} and is enlarged to {width} x {height}; its blur is "
            "learned, too",
            "take a larger picture, or lower train.resolution",
        )
    if traits.cut > CUT:
        yield _cut(name, traits, frame)
    if traits.brightness < DARK:
        yield warning(
            "pictures", f"{name} is very dark", "brighten it, or take one with more light"
        )
    elif traits.brightness > BRIGHT:
        yield warning("pictures", f"{name} is very bright", "darken it, or take another one")
    elif traits.contrast < FLAT:
        yield warning("pictures", f"{name} is nearly of one color", "check that it is the one")
    if traits.gray and traits.contrast >= FLAT:
        yield warning(
            "pictures", f"{name} has no colors, so gray is learned", "take a picture in color"
        )
    if traits.transparent:
        yield warning(
            "pictures",
            f"{name} is transparent in parts, which become white and are learned",
            "put it on a real background, or give a mask",
        )


def _cut(name: str, traits: Traits, frame: Frame) -> Finding:
    """Return the warning of a picture of which much is not trained on."""
    share = f"{traits.cut:.0%} is cut"
    if frame.multiple is not None:
        return warning(
            "pictures",
            f"{name} is {traits.size}, more than {LONGEST:.0f} times as long as wide: {share}",
            "crop it around the subject",
        )
    kept = "a square around its subject" if frame.around_subject else "its center square"
    return warning(
        "pictures",
        f"{name} is {traits.size}: only {kept} is used, and {share}",
        f"keep its shape (train.crop: {WHOLE}), or crop it to a square around the subject",
    )


def look_at_pictures(recipe: Recipe) -> Iterator[Finding]:
    """Yield what is found of the training pictures and their masks."""
    concept, frame = recipe.concept, frame_of(recipe)
    paths, wrong, doubts = _find(concept.images, _IMAGES)
    yield from (*wrong, *doubts)
    masks: list[Path | None] = [None] * len(paths)
    if concept.masks == AUTO:
        yield from _found_masks(paths, concept.mask_model, recipe.base.model)
    elif concept.masks is not None:
        found, missing, doubts = _find(concept.masks, _MASKS)
        yield from (*missing, *doubts)
        if not wrong and not missing:
            try:
                masks = list(match_masks(paths, concept.masks))
            except UserError as error:
                yield of_error("masks", error)
        elif wrong:
            yield from (bad for mask in found if (bad := _unreadable(mask, _MASKS, "L")))
    yield from _each(paths, masks, frame)
    if together := shape_problem(recipe, training_sizes(recipe)):
        yield of_error("pictures", together)
    with suppress(UserError):  # of a picture that can't be read, `_each` tells
        for told in strangers(recipe.base.model, paths):
            yield warning("base", told, another_base("base"))
    if concept.prior and concept.prior.images:
        yield from _class_pictures(concept.prior.images)


def _find(spec: str | Sequence[str], key: str) -> tuple[list[Path], list[Finding], list[Finding]]:
    """Return the files that are there, a problem for each that is not, and what is left out."""
    paths: list[Path] = []
    wrong: list[Finding] = []
    doubts: list[Finding] = []
    for entry in [spec] if isinstance(spec, str) else [[one] for one in spec]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", UserWarning)
            try:
                paths += find_images(entry, key)
            except UserError as error:
                wrong.append(of_error(_called(key), error))
        doubts += [warning(_called(key), str(one.message)) for one in told]
    return paths, wrong, doubts


def _called(key: str) -> str:
    return "masks" if key == _MASKS else "pictures"


def _unreadable(path: Path, key: str, mode: str) -> Finding | None:
    try:
        read_picture(path, key, mode)
    except UserError as error:
        return of_error(_called(key), error)
    return None


def _each(paths: list[Path], masks: list[Path | None], frame: Frame) -> Iterator[Finding]:
    seen: dict[str, Path] = {}
    for path, mask in zip(paths, masks, strict=True):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # `advice` tells of small pictures
                image = load_training_image(path, None, frame)
        except UserError as error:
            yield of_error("pictures", error)
            if mask is not None and (bad := _unreadable(mask, _MASKS, "L")):
                yield bad
            continue
        traits = traits_of(image)
        width, height = image.size
        yield ok("pictures", f"{path}: {traits.size}, trained at {width} x {height}")
        yield from advice(str(path), traits, frame)
        digest = hashlib.sha256(image.pixels.numpy().tobytes()).hexdigest()
        if digest in seen:
            yield warning("pictures", f"{path} is the same picture as {seen[digest]}", "drop one")
        seen[digest] = path
        if mask is not None:
            yield _mask(path, mask, frame)


def _mask(path: Path, mask: Path, frame: Frame) -> Finding:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            image = load_training_image(path, mask, frame)
    except UserError as error:
        return of_error("masks", error)
    assert image.mask is not None
    if bool(torch.all(image.mask == 1)):
        return warning("masks", f"{mask} is white everywhere and masks nothing", "drop it")
    share = float(image.mask.mean())
    if share < THIN_MASK:
        return warning(
            "masks",
            f"{mask} leaves {share:.2%} of the picture to learn from",
            "paint the whole subject white",
        )
    return ok("masks", f"{mask}: the subject is {share:.0%} of the picture")


def _found_masks(paths: list[Path], model: str | None, base: str) -> Iterator[Finding]:
    """Yield what is found of the masks that a run would find; no model is loaded.

    So the base doesn't help here as it does in the run, and a doubt is no more than a warning.
    """
    finder = MaskFinder()
    for path in paths:
        try:
            if model is not None and read_alpha(path, _IMAGES) is None:
                yield ok("masks", f"{path}: the run has {model} find the subject")
                continue
            found = finder.find(path, _IMAGES)
        except UserError as error:
            if model is None and _unreadable(path, _IMAGES, "RGB") is None:
                yield of_error("masks", error)  # of one that can't be read, `_each` tells
            continue
        if found.doubt:
            judged = problem if found.by == ALPHA else warning
            yield judged(
                "masks",
                f"the mask that {found.by} gives for {path} {found.doubt}",
                f"run `tlora mask {shlex.quote(str(path))}`, with --base and --class as the run "
                "does, look at the overlay and correct the mask, or crop the photo around its "
                "subject",
            )
        else:
            helped = "" if found.by == ALPHA else f"; the run has {base} help"
            share = f"{found.coverage:.0%}"
            yield ok("masks", f"{path}: the subject is {share} of it, by {found.by}{helped}")


def _class_pictures(folder: str) -> Iterator[Finding]:
    key = "concept.prior.images"
    paths, wrong, doubts = _find(folder, key)
    yield from (*wrong, *doubts)
    bad = [found for path in paths if (found := _unreadable(path, key, "RGB"))]
    yield from bad
    if paths and not bad:
        yield ok("pictures", f"{len(paths)} class pictures in {folder}")
