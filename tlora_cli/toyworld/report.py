"""Score adapters on the same prompts and seeds, and make a page to look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.formats import read_origin
from tlora_cli.foundation.devices import choose_device
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, write_text
from tlora_cli.foundation.pages.data_urls import png_url
from tlora_cli.foundation.pages.templates import render
from tlora_cli.toyworld import studio
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import Concept, find_concept
from tlora_cli.toyworld.factors import Scene, chance
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.scores import Rate
from tlora_cli.toyworld.studio import Drawn, Studio
from tlora_cli.toyworld.suites import Task, base_prompt, contexts

BASE_PROMPTS = 15
"""Pictures of the base prompt, as in the paper."""
SHOWN = 12
"""Contexts on the page."""


@dataclass(frozen=True)
class Scored:
    """One adapter's pictures and scores.

    Attributes:
        name: as given by the user.
        plain: pictures of the base prompt.
        placed: pictures in other contexts.
        rates: name of the score -> share.
    """

    name: str
    plain: list[Drawn]
    placed: list[Drawn]
    rates: dict[str, Rate]


def score_adapters(
    adapters: Sequence[str], concept_name: str, picture: int, count: int, seed: int, folder: Path
) -> tuple[Path, list[str]]:
    """Score adapter files and write `scores.json` and `index.html` into a new folder.

    Args:
        adapters: files, or NAME=FILE.
        concept_name: of the built-in world.
        picture: which of its pictures was trained on, from 1.
        count: contexts.
        seed: of prompts and pictures.
        folder: new.

    Returns:
        The page, and lines for the terminal.

    Raises:
        UserError: for an unknown concept, a folder that exists, or an adapter that doesn't fit.
    """
    concept = find_concept(concept_name)
    scenes = concept.scenes()
    if picture > len(scenes):
        raise UserError(
            f"the concept {concept_name} has no picture {picture}",
            where="--picture",
            do=f"its pictures are 1 to {len(scenes)}",
        )
    if folder.exists():
        raise UserError(
            f"{folder} exists already and is left as it is",
            where="--output",
            do="name a new folder, or remove this one",
        )
    training = scenes[picture - 1]
    files = dict(_named(one) for one in adapters)
    if len(files) < len(adapters):
        raise UserError(
            "two adapters have the same name",
            where="--adapter",
            do="name them: --adapter NAME=FILE",
        )
    base = _common_base(list(files.values()))
    room = Studio(base, choose_device("auto", "fp32", None))
    tasks = base_prompt(concept, BASE_PROMPTS, seed), contexts(concept, count, training, seed)
    scored = [_score(room, name, file, concept, training, *tasks) for name, file in files.items()]
    with folder_atomically(folder) as part:
        about = {"base": base, "concept": concept_name, "picture": picture, "seed": seed}
        values = {one.name: {k: _as_dict(v) for k, v in one.rates.items()} for one in scored}
        write_text(part / "scores.json", json.dumps({**about, "adapters": values}, indent=2) + "\n")
        write_text(part / "index.html", _page(concept, training, base, scored))
    return folder / "index.html", _table(scored)


def _named(given: str) -> tuple[str, Path]:
    name, equals, file = given.partition("=")
    if equals and not Path(given).exists():
        return name, Path(file)
    return Path(given).parent.name or Path(given).stem, Path(given)


def _common_base(files: list[Path]) -> str:
    bases = {file: read_origin(file)[1].base_model for file in files}
    for file, base in bases.items():
        if base is None:
            raise UserError(
                "the adapter file does not say which base model it belongs to",
                where=str(file),
                do="score the file that tlora trained, which says it; the built-in bases are "
                + ", ".join(BUNDLE.bases),
            )
        if base not in BUNDLE.bases:
            raise UserError(
                f"the adapter belongs to {base}, which does not draw the built-in world",
                where=str(file),
                do=f"score adapters of a built-in base: {', '.join(BUNDLE.bases)}",
            )
    found = sorted({str(base) for base in bases.values()})
    if len(found) > 1:
        raise UserError(
            f"the adapters belong to {' and '.join(found)}, and are compared on one base",
            where="--adapter",
            do="score those of each base by themselves",
        )
    return found[0]


def _score(
    room: Studio,
    name: str,
    file: Path,
    concept: Concept,
    training: Scene,
    plain_tasks: list[Task],
    placed_tasks: list[Task],
) -> Scored:
    drawn = room.draw_adapted([*plain_tasks, *placed_tasks], file)
    plain, placed = drawn[: len(plain_tasks)], drawn[len(plain_tasks) :]
    rates = {
        "S*": studio.success(placed, concept),
        "TS*": studio.prompted(placed),
        "ID*": studio.identity(placed, concept),
        "ID* base prompt": studio.identity(plain, concept),
        "details": studio.details(placed, concept),
        "leak": studio.leak(placed, training),
        "copy": studio.copies(placed, training),
    }
    return Scored(name, plain, placed, rates)


def _as_dict(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"value": round(rate.value, 4), "low": round(low, 4), "high": round(high, 4),
            "count": rate.count}  # fmt: skip


def _table(scored: Sequence[Scored]) -> list[str]:
    """Return a line for each score, so that two adapters fit a terminal of 80 columns."""
    names = list(scored[0].rates)
    width = max(len(name) for name in names)
    lines = [" " * width + "".join(f"  {one.name:>22}" for one in scored)]
    for name in names:
        cells = "".join(f"  {one.rates[name]!s:>22}" for one in scored)
        lines.append(f"{name:{width}}{cells}")
    return lines


# --- the page -------------------------------------------------------------------------------------


def _page(concept: Concept, training: Scene, base: str, scored: Sequence[Scored]) -> str:
    def marks(drawn: Drawn) -> list[tuple[str, bool]]:
        """Return what the judge reads on a picture, each with whether it is right."""
        wanted = {**drawn.task.asked, "marking": concept.marking, "feature": concept.feature}
        return [(drawn.reading[name], drawn.reading[name] == v) for name, v in wanted.items()]

    plain, placed = (
        list(zip(*pictures, strict=True))
        for pictures in ([one.plain for one in scored], [one.placed for one in scored])
    )
    return render(
        "toyworld/report.html.jinja",
        title=f"{concept.name}: {' and '.join(one.name for one in scored)}",
        concept=concept,
        scene=training,
        training=png_url(draw(training).image),
        base=base,
        scored=scored,
        chance=chance(concept.marking, concept.feature),
        rows=[*plain[:2], *placed[:SHOWN]],
        png_url=png_url,
        marks=marks,
    )
