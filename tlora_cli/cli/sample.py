"""The command `tlora sample`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlora_cli.cli.choices import (
    DEVICES,
    PRECISIONS,
    QUANTIZATIONS,
    check_name,
    completing,
    either,
)
from tlora_cli.cli.going_on import goes_on
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.families import FAMILIES, sampler_names
from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.reading import read_text

if TYPE_CHECKING:
    from tlora_cli.sampling.draw import Job

_SAMPLERS = tuple(name for name in sampler_names() if name != "default")
_NEGATIVE = ", ".join(one.title for one in FAMILIES.values() if not one.no_negative_prompt)


@goes_on("the pictures that were drawn are in {output}; again:\n  {again}")
def sample(
    adapter: Annotated[
        list[str],
        typer.Option(
            metavar="FILE[:STRENGTH]",
            help="Adapter file (.safetensors). Repeat to draw with several together.",
        ),
    ],
    prompt: Annotated[
        list[str] | None, typer.Option(help="A prompt; V* is the concept. Repeat for more.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="Text file with a prompt a line; # begins a comment.")
    ] = None,
    output: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("samples"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 1,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Denoising steps.")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance scale.")] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help=f"What not to show ({_NEGATIVE}).")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(_SAMPLERS)}.", autocompletion=completing(_SAMPLERS)),
    ] = None,
    scale: Annotated[float, typer.Option(help="Adapter strength.")] = 1.0,
    min_rank: Annotated[
        int | None, typer.Option(min=1, help="Least rank, for files that don't say.")
    ] = None,
    concept: Annotated[str | None, typer.Option(help='Words for V*, e.g. "sks dog".')] = None,
    base: Annotated[
        str | None, typer.Option(help="Base model, over the one the file names.")
    ] = None,
    base_config: Annotated[
        str | None, typer.Option(help="Configuration folder of a single-file base.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help=f"{either(PRECISIONS)}.", autocompletion=completing(PRECISIONS)),
    ] = None,
    quantization: Annotated[
        str | None,
        typer.Option(
            help=f"{either(QUANTIZATIONS)}; default: as it was trained.",
            autocompletion=completing(QUANTIZATIONS),
        ),
    ] = None,
    offload: Annotated[
        bool,
        typer.Option("--offload", help="Keep the base in main memory, for a small card; slower."),
    ] = False,
    device: Annotated[
        str, typer.Option(help=f"{either(DEVICES)}.", autocompletion=completing(DEVICES))
    ] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures drawn together.")] = 1,
    anyway: Annotated[
        bool,
        typer.Option("--anyway", help="Draw prompts as they stand, also without the concept."),
    ] = False,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help="Also write all pictures on one sheet.")
    ] = False,
) -> None:
    """Draw pictures with an adapter. Settings not given are those it was trained with."""
    prompts = list(prompt or [])
    if prompts_file is not None:
        prompts += _read_prompts(prompts_file)
    if not prompts:
        raise UserError(
            "no prompt was given",
            do='pass --prompt "a photo of a V* in the snow" or --prompts-file',
        )
    check_name("--precision", precision, PRECISIONS)
    check_name("--quantization", quantization, QUANTIZATIONS)
    check_name("--device", device, DEVICES)
    hush_libraries()
    from tlora_cli.sampling.sample import sample as draw

    draw(
        adapter,
        prompts,
        output,
        seed=seed,
        count=count,
        width=width,
        height=height,
        steps=steps,
        guidance=guidance,
        negative_prompt=negative_prompt,
        scheduler=scheduler,
        scale=scale,
        min_rank=min_rank,
        concept=concept,
        base=base,
        base_config=base_config,
        precision=precision,
        quantization=quantization,
        offload=offload,
        device=device,
        batch_size=batch_size,
        anyway=anyway,
        contact_sheet=contact_sheet,
        notify=reporter.inform,
        drawn=_tell_picture,
    )


def _tell_picture(file: Path, job: Job | None) -> None:
    reporter.result(
        "picture",
        str(file),
        file=str(file),
        prompt=job.prompt if job else None,
        seed=job.seed if job else None,
    )


def _read_prompts(path: Path) -> list[str]:
    lines = read_text(path, "prompts file").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
