"""Draw a sheet: the base is loaded once, and its adapters take turns on it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.devices import memory_explained
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import explained
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.foundation.pictures import save_png
from tlora_cli.sampling.draw import Job, next_number
from tlora_cli.sampling.generate import filled_prompt
from tlora_cli.sampling.session import Request, SamplingSession
from tlora_cli.tools.sheet.axes import METHOD, NONE, SCALE, SCHEDULE, SEED, TRAINED, Given
from tlora_cli.tools.sheet.cells import Cell, Plan, plan_cells
from tlora_cli.tools.sheet.layout import Block, lay_out
from tlora_cli.tools.sheet.sources import Source, find_source

FULL = "constant"
"""The kind of schedule that keeps all ranks."""


@dataclass(frozen=True)
class SheetRequest:
    """A sheet that is asked for; None means what the adapter says.

    Attributes:
        adapters: files, folders of runs, or NAME=PATH.
        prompts: with V* for the concept; they stand below one another on the sheet.
        axes: one or two names; the first goes down.
        given: values of axes that the user has named.
        output: folder of sheets.
        scale, seed: where they are no axes; the first seed where it is one.
        drawing: further settings of `sampling.session.Request`, the same in all cells.
    """

    adapters: Sequence[str]
    prompts: Sequence[str]
    axes: tuple[str, ...]
    given: Given
    output: Path
    scale: float
    seed: int
    drawing: dict[str, Any]


def draw_sheet(
    asked: SheetRequest, notify: Callable[[str], None], progress: Callable[[int, int], None]
) -> Path:
    """Draw the sheet and return its PNG file, which has a number that was free.

    Args:
        asked: what to draw.
        notify: told what is loaded, and warnings.
        progress: told (pictures drawn, pictures to draw).

    Raises:
        UserError: if adapters, axes, prompts or the base don't fit.
    """
    sources = [find_source(one) for one in asked.adapters]
    plan = plan_cells(sources, asked.axes, asked.given, asked.scale, asked.seed)
    with memory_explained("lower --width and --height, or use --offload or --quantization nf4"):
        sessions = _sessions(plan, asked, notify)
        _check_schedules(plan, sessions)
        with explained(asked.output):
            asked.output.mkdir(parents=True, exist_ok=True)
        pictures = _draw(plan, sessions, asked, progress)
    first = next(iter(sessions.values()))
    blocks = [
        Block(prompt, _in_rows(plan, [pictures[cell, prompt] for cell in plan.cells]))
        for prompt in dict.fromkeys(asked.prompts)
    ]
    sheet = lay_out(blocks, plan.rows, plan.columns, _same_in_all(first, asked, sources))
    name = "-".join(asked.axes)
    path = asked.output / f"{next_number(asked.output):04d}_{name}.png"
    about = {
        "prompts": list(asked.prompts),
        "axes": plan.values,
        "adapters": [str(one.path) for one in sources],
        **dataclasses.asdict(first.settings),
        **{key: value for key, value in _fixed(asked).items() if value is not None},
        "base": first.base.model,
        "precision": first.precision,
    }
    save_png(sheet, path, {PRODUCT: json.dumps(about, ensure_ascii=False)})
    return path


def _sessions(
    plan: Plan, asked: SheetRequest, notify: Callable[[str], None]
) -> dict[Path, SamplingSession]:
    """Return a session for each adapter file; all draw with the settings of the first.

    Raises:
        UserError: if they are not of one base.
    """
    sessions: dict[Path, SamplingSession] = {}
    settings = asked.drawing.get("settings")
    for file in dict.fromkeys(cell.file for cell in plan.cells):
        request = Request(file, asked.prompts, asked.output, **{**asked.drawing, **_own(settings)})
        session = SamplingSession(request, notify)
        if not sessions:
            settings = dataclasses.asdict(session.settings)
        else:
            _check_alike(next(iter(sessions.values())), session, file)
        sessions[file] = session
    return sessions


def _own(settings: dict[str, Any] | None) -> dict[str, Any]:
    return {} if settings is None else {"settings": settings}


def _check_alike(first: SamplingSession, other: SamplingSession, file: Path) -> None:
    for what, one, two in (
        ("base", first.base.model, other.base.model),
        ("family", first.family.title, other.family.title),
        ("quantization", first.quantization or "none", other.quantization or "none"),
        ("precision", first.precision, other.precision),
        ("objective", first.info.objective or "auto", other.info.objective or "auto"),
    ):
        if one != two:
            option = f", or pass --{what}" if what not in ("family", "objective") else ""
            raise UserError(
                f"the adapters of a sheet share one {what}, and these have {one} and {two}",
                where=str(file),
                do=f"draw two sheets{option}",
            )


def _check_schedules(plan: Plan, sessions: dict[Path, SamplingSession]) -> None:
    """Stop before anything is loaded where a schedule can't be had; only methods say so early."""
    if SCHEDULE not in plan.axes:
        return
    for file, session in sessions.items():
        method = session.info.method
        if method is not None and not _may_be_masked(method):
            raise UserError(
                f"{method} has no rank schedule, so there is nothing to draw it under",
                where=str(file),
                do="leave schedule out of --over",
            )


def _may_be_masked(method: str) -> bool:
    from tlora_cli.methods import METHODS

    return method not in METHODS or METHODS[method].masked


def _draw(
    plan: Plan,
    sessions: dict[Path, SamplingSession],
    asked: SheetRequest,
    progress: Callable[[int, int], None],
) -> dict[tuple[Cell, str], Image.Image]:
    """Return the picture of each cell and prompt."""
    texts = {
        (file, prompt): filled_prompt(prompt, session, session.request)
        for file, session in sessions.items()
        for prompt in asked.prompts
    }
    first = next(iter(sessions.values()))
    encoders = first.load_text()
    for file, session in sessions.items():
        session.encode(encoders, [texts[file, prompt] for prompt in asked.prompts])
    del encoders
    base = first.load_denoiser()
    pictures: dict[tuple[Cell, str], Image.Image] = {}
    total = len(plan.cells) * len(set(asked.prompts))
    progress(0, total)
    for file, session in sessions.items():
        adapter = session.attach(base)
        trained = adapter.schedule
        for cell in (one for one in plan.cells if one.file == file):
            if cell.schedule != TRAINED:
                adapter.reschedule(_schedule(trained, cell.schedule, file))
            elif trained is not None:
                adapter.reschedule(trained)
            for prompt in dict.fromkeys(asked.prompts):
                job = Job(texts[file, prompt], cell.seed)
                [(_, picture)] = session.draw([job], cell.scale, 1)
                pictures[cell, prompt] = picture
                progress(len(pictures), total)
        session.detach()
    return pictures


def _schedule(trained: RankSchedule | None, name: str, file: Path) -> RankSchedule:
    """Return another schedule of the same ranks.

    Raises:
        UserError: if the adapter was trained under none.
    """
    if trained is None or trained.always_full:
        raise UserError(
            "the adapter was trained with all ranks, so no other schedule suits it",
            where=str(file),
            do="leave schedule out of --over",
        )
    return dataclasses.replace(trained, kind=FULL if name == NONE else name, points=None)


def _in_rows(plan: Plan, pictures: Sequence[Image.Image]) -> list[list[Image.Image]]:
    across = len(plan.columns)
    return [list(pictures[n : n + across]) for n in range(0, len(pictures), across)]


def _fixed(asked: SheetRequest) -> dict[str, Any]:
    """Return what is no axis."""
    return {
        SCALE: None if SCALE in asked.axes else asked.scale,
        SEED: None if SEED in asked.axes else asked.seed,
    }


def _same_in_all(session: SamplingSession, asked: SheetRequest, sources: Sequence[Source]) -> str:
    """Return the line below the pictures: what is the same in all of them."""
    parts = [] if METHOD in asked.axes else [str(sources[0].path)]
    parts += [f"{name} {value:g}" for name, value in _fixed(asked).items() if value is not None]
    settings = session.settings
    parts += [
        f"{settings.steps} denoising steps",
        f"guidance {settings.guidance:g}",
        session.base.model,
    ]
    return ", ".join(parts)
