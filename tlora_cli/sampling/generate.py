"""An adapter file and prompts -> PNG files: what `tlora sample` does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tlora_cli.foundation.devices import memory_explained
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import explained
from tlora_cli.foundation.pictures import save_png
from tlora_cli.foundation.prompts import has_any_mark, names_concept, odd_mark, sampling_prompt
from tlora_cli.sampling.draw import Job, contact_sheet, next_number, save_picture
from tlora_cli.sampling.session import Request, SamplingSession

Drawn = Callable[[Path, Job | None], None]
"""Told a file that was written, and what was drawn; None for a contact sheet."""


def generate(
    request: Request, notify: Callable[[str], None], drawn: Drawn | None = None
) -> list[Path]:
    """Draw all pictures and return their files, the contact sheet last if one was asked for.

    Args:
        request: which adapter, prompts and settings.
        notify: told what is loaded, and warnings.
        drawn: told each file with what was drawn, None for the sheet; default: `notify` is told it.

    Raises:
        UserError: for an adapter, base or prompt that doesn't fit.
    """
    with memory_explained(
        "lower --batch-size, --width and --height, or use --offload or --quantization nf4"
    ):
        return _generate(request, notify, drawn or (lambda file, _: notify(str(file))))


def _generate(request: Request, notify: Callable[[str], None], drawn: Drawn) -> list[Path]:
    session = SamplingSession(request, notify)
    prompts = [filled_prompt(p, session, request) for p in request.prompts]
    with explained(request.output):
        request.output.mkdir(parents=True, exist_ok=True)
    session.prepare(prompts)
    jobs = [Job(p, request.seed + n) for p in dict.fromkeys(prompts) for n in range(request.count)]
    written, rows = [], defaultdict[str, list[Image.Image]](list)
    for job, picture in session.draw(jobs, request.scale, request.batch_size):
        about = session.describe(batch_size=request.batch_size)
        written.append(save_picture(request.output, job, picture, session.settings, about))
        if request.sheet:
            rows[job.prompt].append(picture)
        drawn(written[-1], job)
    if request.sheet:
        path = request.output / f"{next_number(request.output):04d}_contact_sheet.png"
        sheet = contact_sheet(rows)
        save_png(sheet, path)
        written.append(path)
        drawn(path, None)
    return written


def filled_prompt(prompt: str, session: SamplingSession, request: Request) -> str:
    """Return a prompt with the concept's words in it.

    Raises:
        UserError: if it doesn't name the concept, or has a mark that nothing fills in.
    """
    info = session.info
    own = (None, None) if request.concept else (info.placeholder, info.class_name)
    if request.others and session.concept is None and session.names and has_any_mark(prompt):
        raise UserError(
            "V* could be the words of any of these adapters, which differ",
            where=repr(prompt),
            do=f"write the words: {', '.join(session.names)}",
        )
    if not request.anyway and (odd := odd_mark(prompt, own)):
        raise UserError(
            f"the prompt is not understood: {odd}",
            where=repr(prompt),
            do="mend it, or add --anyway to draw it as it stands",
        )
    text = sampling_prompt(prompt, session.concept, *own)
    if request.anyway or not session.names or names_concept(text, session.names):
        return text
    raise UserError(
        f"the prompt names neither V* nor {session.names[0]!r}, so it would show another "
        f"{info.class_name or 'one'} than the one that was learned",
        where=repr(prompt),
        do="write V* where the concept belongs, or add --anyway if it is meant so",
    )
