"""Score adapters on the same prompts and seeds, and make a page to look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tlora_cli.formats import read_origin
from tlora_cli.formats.opening import locate
from tlora_cli.foundation.bundled import version_of
from tlora_cli.foundation.devices import choose_device
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import folder_atomically, write_text
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import Concept, find_concept
from tlora_cli.toyworld.factors import Scene
from tlora_cli.toyworld.report_page import page
from tlora_cli.toyworld.scored import Scored, hits_of, rates_of, read_scored, write_scored
from tlora_cli.toyworld.studio import Studio
from tlora_cli.toyworld.suites import Task, base_prompt, contexts
from tlora_cli.training.run_folder import RunFolder, checkpoints, step_of

BASE_PROMPTS = 15
"""Pictures of the base prompt, as in the paper."""
SHOWN = 7
"""Contexts on the page, before one picture of the base prompt."""


@dataclass(frozen=True)
class _Tasks:
    """The pictures that are drawn: all for the scores, some at every step for the page, too."""

    plain: list[Task]
    placed: list[Task]

    @property
    def shown(self) -> list[Task]:
        return [*self.placed[:SHOWN], *self.plain[:1]]


def score_adapters(
    adapters: Sequence[str],
    concept_name: str,
    picture: int,
    count: int,
    seed: int,
    folder: Path,
    beside: Path | None = None,
) -> tuple[Path, list[str]]:
    """Score adapters and write `scores.json`, pictures and `index.html` into a new folder.

    Args:
        adapters: files or run folders, or NAME=FILE. A run folder's checkpoints are drawn, too.
        concept_name: of the built-in world.
        picture: which of its pictures was trained on, from 1.
        count: contexts.
        seed: of prompts and pictures.
        folder: new.
        beside: an earlier such folder, whose adapters the page shows, too.

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
    tasks = _Tasks(
        base_prompt(concept, BASE_PROMPTS, seed), contexts(concept, count, training, seed)
    )
    about = {
        "base": base,
        "version": version_of(base),
        "concept": concept_name,
        "picture": picture,
        "seed": seed,
        "prompts": [task.text for task in tasks.shown],
        "count": count,
    }
    kept, command = read_scored(beside, about, tasks.shown) if beside else ([], "")
    room = Studio(base, choose_device("auto", "fp32", None))
    scored = [_score(room, name, file, concept, training, tasks) for name, file in files.items()]
    with folder_atomically(folder) as part:
        write_scored(part, about, scored)
        every = [*scored, *(one for one in kept if one.name not in files)]
        write_text(part / "index.html", page(concept, training, base, every, command))
    return folder / "index.html", _table(every)


def _named(given: str) -> tuple[str, Path]:
    name, equals, file = given.partition("=")
    if equals and not Path(given).exists():
        return name, Path(file)
    path = Path(given)
    return (path.name if path.is_dir() else path.parent.name) or path.stem, path


def _common_base(files: list[Path]) -> str:
    bases = {file: read_origin(locate(file))[1].base_model for file in files}
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
    room: Studio, name: str, given: Path, concept: Concept, training: Scene, tasks: _Tasks
) -> Scored:
    file = locate(given)
    drawn = room.draw_adapted([*tasks.plain, *tasks.placed], file)
    plain, placed = drawn[: len(tasks.plain)], drawn[len(tasks.plain) :]
    info = read_origin(file)[1]
    last = info.train_steps or 0
    frames = {last: [*placed[:SHOWN], *plain[:1]]}
    earlier = {step_of(one): one for one in _checkpoints(given) if step_of(one) < last}
    if earlier:
        frames[0] = room.draw(tasks.shown, concept=info.concept or None)
    for step, checkpoint in earlier.items():
        frames[step] = room.draw_adapted(tasks.shown, locate(checkpoint))
    return Scored(
        name, rates_of(plain, placed, concept, training), hits_of(placed, concept), frames
    )


def _checkpoints(given: Path) -> list[Path]:
    return checkpoints(RunFolder(given).checkpoints) if given.is_dir() else []


def _table(scored: Sequence[Scored]) -> list[str]:
    """Return a line for each score, so that two adapters fit a terminal of 80 columns."""
    names = list(scored[0].rates)
    width = max(len(name) for name in names)
    lines = [" " * width + "".join(f"  {one.name:>22}" for one in scored)]
    for name in names:
        cells = "".join(f"  {one.rates[name]!s:>22}" for one in scored)
        lines.append(f"{name:{width}}{cells}")
    return lines
