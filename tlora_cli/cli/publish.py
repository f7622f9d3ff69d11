"""The command `tlora publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tlora_cli.cli.choices import DEVICES, check_known, check_name, completing, either
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import UserError

ALSO = ("kohya", "comfyui")
"""Formats, of those that `tlora convert` writes, for the programs that most people draw with."""


def publish(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_ADAPTER", help="Folder of a run, or adapter file.")
    ],
    output: Annotated[Path, typer.Option(help="The new folder.")],
    base: Annotated[
        str | None, typer.Option(help="Hub id of the base, where the adapter names a local file.")
    ] = None,
    license_: Annotated[
        str | None, typer.Option("--license", help="License of the base, where it is not known.")
    ] = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            help=f"{either(ALSO)}: files for these, too. Repeat.", autocompletion=completing(ALSO)
        ),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Pictures of `tlora sample`; default: the last previews.")
    ] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Or draw now; V* is the concept. Repeat for more.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures per --prompt.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture.")] = 0,
    device: Annotated[
        str,
        typer.Option(help=f"{either(DEVICES)}, to draw on.", autocompletion=completing(DEVICES)),
    ] = "auto",
    training_pictures: Annotated[
        bool, typer.Option("--training-pictures", help="Show what it was trained on, too.")
    ] = False,
    upload: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="Upload to this Hub repository.")
    ] = None,
    public: Annotated[
        bool, typer.Option("--public", help="Make the repository public; default: private.")
    ] = False,
) -> None:
    """Write a folder for the Hugging Face Hub: adapter, model card, pictures.

    Nothing is uploaded without --upload. Paths of this computer and training pictures stay out.
    """
    for name in also or ():
        check_known("--also", name, ALSO)
    check_name("--device", device, DEVICES)
    if pictures is not None and prompt:
        raise UserError("pictures are taken or drawn, not both", do="drop --pictures or --prompt")
    if public and upload is None:
        raise UserError("--public is about an upload", do="add --upload OWNER/NAME, or drop it")
    page = output.with_name(f"{output.name}.html")
    for path in (output, page):
        if path.exists():
            raise UserError("the output exists already", str(path), "choose another name")

    hush_libraries()
    from tlora_cli.tools.publish.run import Publication, publish, write_card_page

    wanted = Publication(
        source, output, base, license_, also or (), pictures, prompt or (), count, seed, device,
        training_pictures, upload, public,
    )  # fmt: skip
    address = publish(wanted, reporter.inform)
    write_card_page(output, page)
    card = output / "README.md"
    reporter.result(
        "published",
        [
            f"wrote {output}; its page is {card}, to look at here as {page}",
            *([f"uploaded to {address}"] if address else []),
        ],
        folder=str(output),
        card=str(card),
        page=str(page),
        address=address,
    )
    if address is None:
        reporter.advise("nothing was uploaded: add --upload")
