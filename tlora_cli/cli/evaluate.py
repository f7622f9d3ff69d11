"""The command `tlora evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from tlora_cli.cli.choices import DEVICES, completing, either
from tlora_cli.cli.going_on import goes_on
from tlora_cli.cli.quiet import hush_libraries
from tlora_cli.cli.reporter import reporter
from tlora_cli.foundation.errors import UserError

METRICS = ("clip", "dino")


@goes_on("what was drawn is kept; go on with:\n  {again}")
def evaluate(
    adapter: Annotated[
        Path | None, typer.Option(help="Adapter file or run folder to draw pictures with.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Or a folder of PNG files, whatever has made them.")
    ] = None,
    prompts_of: Annotated[
        Path | None, typer.Option(help="JSON of picture name -> prompt, for --pictures.")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Real pictures; default: those it was trained on.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Prompts: live or object; default: by the class.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option(help="YAML or JSON with prompts of your own.")
    ] = None,
    section: Annotated[
        list[str] | None, typer.Option(help="Lists of the prompts file to take; default: all.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(help="clip, dino, dinov2, siglip; NAME=CHECKPOINT for another checkpoint."),
    ] = None,
    class_name: Annotated[
        str, typer.Option("--class", help="Class of the concept, for --pictures.")
    ] = "",
    placeholder: Annotated[str, typer.Option(help="Rare word, for --pictures.")] = "sks",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the first picture.")] = 0,
    mask: Annotated[
        str, typer.Option(help="none, or the checkpoint that finds the subject; auto: CLIPSeg.")
    ] = "auto",
    same: Annotated[
        list[str] | None,
        typer.Option(help="For S: more photographs of the concept (file or folder; repeatable)."),
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(help="For S: photographs of other things of its class, likewise."),
    ] = None,
    captioned: Annotated[
        Path | None,
        typer.Option(help="For S with --pictures: a folder of pictures that show their prompts."),
    ] = None,
    least_likeness: Annotated[
        float | None, typer.Option(min=-1, max=1, help="For S: this likeness in place of pairs.")
    ] = None,
    least_agreement: Annotated[
        float | None, typer.Option(min=-1, max=1, help="For S: this agreement in place of pairs.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Pictures per prompt.")] = 5,
    base_count: Annotated[int, typer.Option(min=1, help="Pictures of the base prompt.")] = 15,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Pictures drawn together; default 4.")
    ] = None,
    device: Annotated[
        str, typer.Option(help=f"{either(DEVICES)}.", autocompletion=completing(DEVICES))
    ] = "auto",
    output: Annotated[Path, typer.Option(help="Folder for pictures and results.")] = Path(
        "evaluation"
    ),
) -> None:
    """Score an adapter, or a folder of pictures: likeness, prompts, diversity, copying, drift.

    Leaves a page (index.html), results.json, results.md, pictures.csv and the pictures. A run that
    was stopped goes on where it was. S is the share of pictures that are alike and as asked at
    once; it needs pairs that set what counts, or numbers.
    """
    if (adapter is None) == (pictures is None):
        raise UserError(
            "name an adapter or a folder of pictures", do="pass --adapter or --pictures"
        )
    hush_libraries()
    from tlora_cli.evaluation.page import write_page
    from tlora_cli.evaluation.real_pictures import PairSettings
    from tlora_cli.evaluation.run import Evaluation, evaluate_adapter, evaluate_pictures
    from tlora_cli.evaluation.suites import find_suite, read_prompts

    prompts = None
    if prompts_file is not None:
        prompts = read_prompts(prompts_file, section or ())
    elif suite is not None:
        prompts = find_suite(suite).prompts
    chosen = dict(_checkpoint(one) for one in metric or METRICS)
    job = Evaluation(
        output,
        prompts,
        chosen,
        images,
        seed,
        count,
        base_count,
        batch_size=batch_size,
        device=device,
        mask=None if mask == "none" else mask,
        pairs=PairSettings(
            tuple(same or ()), tuple(others or ()), captioned, least_likeness, least_agreement
        ),
    )
    if pictures is not None:
        if not class_name:
            raise UserError("the class is not known", where="--class", do="pass --class dog")
        scores = evaluate_pictures(pictures, prompts_of, class_name, placeholder, job)
    else:
        assert adapter is not None
        console = reporter.console()
        columns = (
            TextColumn("pictures {task.completed}/{task.total}"),
            BarColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=None)

            def drawn(done: int, total: int) -> None:
                bar.update(task, completed=done, total=total)
                reporter.event("progress", done=done, total=total)

            scores = evaluate_adapter(
                adapter,
                job,
                lambda line: console.print(line, highlight=False, markup=False),
                drawn,
            )
    notes = [*scores.notes, *([scores.hint] if scores.hint else [])]
    page = write_page(output)
    reporter.result(
        "evaluated",
        [f"{name:24} {value:.4f}" for name, value in scores.summary.items()],
        output=str(output),
        page=str(page),
        scores=scores.summary,
        notes=notes,
    )
    reporter.advise(*notes, f"results: {output}", f"page: {page}")


def _checkpoint(given: str) -> tuple[str, str | None]:
    name, equals, checkpoint = given.partition("=")
    return name, checkpoint if equals else None
