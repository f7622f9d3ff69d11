"""The command `tlora mask`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.going_on import goes_on
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.foundation.errors import Status, UserError


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
    class_name: Annotated[
        str, typer.Option("--class", help="What they show, in a word, e.g. dog; for --model.")
    ] = "",
) -> None:
    """Find the subject of photos, and write its mask and a picture to look at.

    A transparent background is taken as it is. Correct a mask in any image editor: white is
    learned. Then `concept.masks: FOLDER`, or `concept.masks: auto` if they are right as they are.
    Nothing is overwritten.
    """
    if model is not None and not class_name.strip():
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
    finder = MaskFinder(model, class_name)
    doubtful = 0
    for path, own in zip(paths, files, strict=True):
        found = finder.find(path, str(path))
        own.write(found)
        typer.echo(f"{own.mask}: {found.coverage:.0%} of {path}, by {found.by}")
        typer.echo(f"{own.overlay}: to look at")
        if found.doubt:
            doubtful += 1
            wrong = UserError(f"the mask of {path} {found.doubt}", str(own.overlay), own.remedy)
            typer.echo(f"error: {wrong}", err=True)
    if doubtful:
        raise typer.Exit(Status.MISTAKE)
    folder = shlex.quote(str(out))
    typer.echo(f"next: if they are wrong, paint in them; then --set concept.masks={folder}")
