"""The command `tlora caption`."""

from __future__ import annotations

from typing import Annotated

import typer

from tlora_cli.cli.choices import DEVICES, check_name, completing, either
from tlora_cli.cli.going_on import goes_on
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.bundled import bundle_of_picture
from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.captions import CHECKPOINT


@goes_on("the texts that were written are kept; name the other photos again")
def caption(
    photos: Annotated[
        list[str], typer.Argument(metavar="PHOTO...", help="Photos, or a folder of photos.")
    ],
    class_name: Annotated[
        str, typer.Option("--class", help="What they show, in a word, e.g. dog.")
    ] = "",
    model: Annotated[
        str,
        typer.Option(
            help="Hub id or folder of a vision-language model that follows instructions; it is "
            "downloaded once."
        ),
    ] = CHECKPOINT,
    device: Annotated[
        str, typer.Option(help=f"{either(DEVICES)}.", autocompletion=completing(DEVICES))
    ] = "auto",
) -> None:
    """Write a caption beside each photo, photo.txt for photo.jpg, by a vision-language model.

    It names what is not to be learned: the place, the pose, the light, things beside the subject;
    V* stands for the subject, and words for its look are taken out. Read each and correct it. Then
    `concept.captions: true`. Nothing is overwritten.
    """
    check_name("--device", device, DEVICES)
    class_name = " ".join(class_name.split())
    if not class_name:
        raise UserError("nothing says what the photos show", do="add --class dog, say")
    for name in photos:
        if bundle_of_picture(name):
            raise UserError(
                f"{name} is built in, and no text can stand beside it",
                do="name a photo of your own",
            )
    hush_libraries()
    from tlora_cli.foundation.devices import choose_device, memory_explained
    from tlora_cli.foundation.files import write_text
    from tlora_cli.foundation.pictures import read_picture
    from tlora_cli.photos.captions.captioner import Captioner, shown
    from tlora_cli.photos.captions.files import new_captions
    from tlora_cli.photos.captions.rule import caption_of
    from tlora_cli.photos.finding import find_images

    paths = [path for one in photos for path in find_images(one, "PHOTO")]
    files = new_captions(paths)
    pictures = [shown(read_picture(path, str(path), "RGB")) for path in paths]
    with memory_explained("name a smaller model by --model, or --device cpu"):
        captioner = Captioner(model, choose_device(device, "fp32"))
        for picture, file in zip(pictures, files, strict=True):
            found = caption_of(captioner.says(picture, class_name), class_name)
            write_text(file, f"{found.text}\n")
            typer.echo(f"{file}: {found.text}")
            for doubt in found.doubts:
                reporter.warn(f"{file} {doubt}")
    reporter.advise("next: read them, correct them in any editor; then --set concept.captions=true")
