"""The command `tlora mask`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlora_cli.cli.going_on import goes_on
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import Status, UserError

if TYPE_CHECKING:
    from tlora_cli.photos.masks.finder import Seen


@goes_on("the masks that were found are in {out}; name the other photos again")
def mask(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Photos, or a folder of photos.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the masks.")] = Path("masks"),
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub id or folder of a CLIPSeg model, e.g. CIDAS/clipseg-rd64-refined; "
            "default: GrabCut, which needs none."
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            help="Base model that helps GrabCut: Hub id, folder or .safetensors file, or a "
            "built-in one. A run with masks: auto asks its own."
        ),
    ] = None,
    class_name: Annotated[
        str,
        typer.Option("--class", help="What they show, in a word, e.g. dog; for --base or --model."),
    ] = "",
) -> None:
    """Find the subject of photos, and write its mask and a picture to look at.

    A transparent background is taken as it is. Correct a mask in any image editor: white is
    learned. Then `concept.masks: FOLDER`, or `concept.masks: auto` if they are right as they are.
    Nothing is overwritten.
    """
    class_name = class_name.strip()
    if model is not None and base is not None:
        raise UserError("--model and --base are two ways to find a subject", do="leave one out")
    if (model is not None or base is not None) and not class_name:
        raise UserError("nothing says what the model shall find", do="add --class dog, say")
    hush_libraries()
    from tlora_cli.photos.finding import find_images
    from tlora_cli.photos.masks.files import mask_files
    from tlora_cli.photos.masks.finder import MaskFinder

    paths = [path for one in photos for path in find_images(one, "PHOTO")]
    files = mask_files(paths, out)
    for one in files:
        for file in (one.mask, one.overlay):
            if file.exists():
                raise UserError(
                    "there is a file of that name already, and it is left as it is",
                    where=str(file),
                    do="name another folder by --out, or remove it",
                )
    seen = _seen(base, class_name, paths) if base else {}
    finder = MaskFinder(model, class_name)
    doubtful = 0
    for path, own in zip(paths, files, strict=True):
        found = finder.find(path, str(path), seen.get(path))
        own.write(found)
        reporter.result(
            "mask",
            [
                f"{own.mask}: {found.coverage:.0%} of {path}, by {found.by}",
                f"{own.overlay}: to look at",
            ],
            photo=str(path),
            mask=str(own.mask),
            overlay=str(own.overlay),
            coverage=found.coverage,
            by=found.by,
            doubt=found.doubt,
        )
        if found.doubt:
            doubtful += 1
            what = f"the mask of {path} {found.doubt}"
            reporter.error(UserError(what, str(own.overlay), own.remedy))
    if doubtful:
        raise typer.Exit(Status.MISTAKE)
    folder = shlex.quote(str(out))
    reporter.advise(f"next: if they are wrong, paint in them; then --set concept.masks={folder}")


def _seen(base: str, class_name: str, photos: list[Path]) -> dict[Path, Seen]:
    """Return where a base sees the class on the photos, as a run with its defaults does."""
    from tlora_cli.families import FAMILIES
    from tlora_cli.families.loading import Base
    from tlora_cli.foundation.devices import choose_device, memory_explained
    from tlora_cli.photos.masks.finder import Seen, needs_looking
    from tlora_cli.recipe.defaults import chosen_method, published_settings
    from tlora_cli.recipe.train_sections import TrainConfig
    from tlora_cli.sampling.looking import look
    from tlora_cli.tools.preflight.from_photo import check_class, check_world
    from tlora_cli.tools.preflight.new_recipe import choose_base

    model, name, _ = choose_base(base, "", None)
    check_class(model, class_name)
    asked = [one for one in photos if needs_looking(one, str(one))]
    if not asked:
        return {}
    check_world(model, [str(one) for one in asked])
    settings = published_settings(name, chosen_method(name), model).get("train", {})
    train = TrainConfig.model_validate(settings)
    device = choose_device(train.device, train.precision)
    reporter.inform(f"loading {model}", err=True)
    with memory_explained("leave --base out; or train with masks: auto and train.quantization"):
        maps = look(FAMILIES[name], Base(model), train, class_name, asked, "PHOTO", device)
    return {photo: Seen(model, one) for photo, one in zip(asked, maps, strict=True)}
