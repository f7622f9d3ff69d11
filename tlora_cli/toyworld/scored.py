"""An adapter's pictures and scores; they are kept in a folder, for later pages.

The folder holds `scores.json` and a sheet of pictures for each adapter: a row for each step that
was looked at, a column for each prompt that the page shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.foundation.pictures import read_picture, save_png
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.toyworld import studio
from tlora_cli.toyworld.concepts import Concept
from tlora_cli.toyworld.factors import SIZE, Scene
from tlora_cli.toyworld.scores import Rate, wholly_right
from tlora_cli.toyworld.studio import Drawn
from tlora_cli.toyworld.suites import Task

SCORES = "scores.json"
SUCCESS = "S*"

Frames = Mapping[int, Sequence[Drawn]]
"""Step -> the pictures that the page shows, a picture for each of its prompts."""


@dataclass(frozen=True)
class Scored:
    """One adapter's pictures and scores.

    Attributes:
        name: as given by the user.
        rates: name of the score -> share.
        hits: whether S* is right, of each picture in other contexts, in their order.
        frames: by step, the last one at the end.
        kept: whether it was drawn for an earlier page, not for this one.
    """

    name: str
    rates: dict[str, Rate]
    hits: list[bool]
    frames: Frames
    kept: bool = False

    @property
    def last(self) -> int:
        """The step of the adapter itself."""
        return max(self.frames)

    def at(self, step: int) -> tuple[int, Sequence[Drawn]]:
        """Return the pictures of the last step that was looked at up to this one, and that step."""
        found = max((one for one in self.frames if one <= step), default=min(self.frames))
        return found, self.frames[found]


def rates_of(
    plain: Sequence[Drawn], placed: Sequence[Drawn], concept: Concept, training: Scene
) -> dict[str, Rate]:
    """Return all scores.

    Args:
        plain: pictures of the base prompt.
        placed: pictures in other contexts.
        concept: what was learned.
        training: the training picture's scene.
    """
    return {
        SUCCESS: studio.success(placed, concept),
        "TS*": studio.prompted(placed),
        "ID*": studio.identity(placed, concept),
        "ID* base prompt": studio.identity(plain, concept),
        "details": studio.details(placed, concept),
        "leak": studio.leak(placed, training),
        "copy": studio.copies(placed, training),
    }


def hits_of(placed: Sequence[Drawn], concept: Concept) -> list[bool]:
    """Return of each picture whether all that was asked and all that is private is right."""
    return [wholly_right(one.reading, one.task.asked, concept.values) for one in placed]


# --- the folder -----------------------------------------------------------------------------------


def write_scored(folder: Path, about: Mapping[str, Any], scored: Sequence[Scored]) -> None:
    """Write `scores.json` and a sheet of pictures for each adapter.

    Args:
        folder: there already.
        about: what all of them share: base, concept, prompts, seed.
        scored: of the adapters that were drawn now.
    """
    adapters = {}
    for number, one in enumerate(scored, 1):
        steps = sorted(one.frames)
        columns = len(one.frames[steps[0]])
        sheet = Image.new("RGB", (columns * SIZE, len(steps) * SIZE))
        for row, step in enumerate(steps):
            for column, drawn in enumerate(one.frames[step]):
                sheet.paste(drawn.picture, (column * SIZE, row * SIZE))
        save_png(sheet, folder / f"pictures-{number}.png")
        adapters[one.name] = {
            **{name: _rate(rate) for name, rate in one.rates.items()},
            "hits": [int(hit) for hit in one.hits],
            "pictures": f"pictures-{number}.png",
            "readings": {str(step): [d.reading for d in one.frames[step]] for step in steps},
        }
    write_text(folder / SCORES, json.dumps({**about, "adapters": adapters}, indent=1) + "\n")


def _rate(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {"value": round(rate.value, 4), "low": round(low, 4), "high": round(high, 4),
            "hits": rate.hits, "count": rate.count}  # fmt: skip


def read_scored(
    folder: Path, about: Mapping[str, Any], shown: Sequence[Task]
) -> tuple[list[Scored], str]:
    """Return the adapters of a folder, and the command that makes them, empty if it says none.

    Args:
        folder: that `write_scored` has written.
        about: what they must share with those of now.
        shown: the prompts of the page.

    Raises:
        UserError: if the folder is another thing, or is about another base, concept or prompts.
    """
    path = folder / SCORES
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        different = [name for name, value in about.items() if content[name] != value]
        if different:
            raise UserError(
                f"its scores are of another {' and '.join(different)}, so they can't stand beside",
                where=str(path),
                do="score both with the same base, concept, picture, count and seed",
            )
        found = [_read(folder, name, one, shown) for name, one in content["adapters"].items()]
        return found, str(content.get("command", ""))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the scores can't be read ({type(error).__name__}: {error})",
            where=str(path),
            do="name the output of an earlier tlora toyworld score",
        ) from error


def _read(folder: Path, name: str, content: Mapping[str, Any], shown: Sequence[Task]) -> Scored:
    readings = {int(step): list(row) for step, row in content["readings"].items()}
    file = folder / Path(str(content["pictures"])).name
    sheet = read_picture(file, str(file), "RGB")
    if sheet.size != (len(shown) * SIZE, len(readings) * SIZE):
        raise ValueError(f"{file.name} has another size than its readings")
    frames = {}
    for row, step in enumerate(sorted(readings)):
        tops = [(column * SIZE, row * SIZE) for column in range(len(shown))]
        cut = [sheet.crop((x, y, x + SIZE, y + SIZE)) for x, y in tops]
        read = [{str(k): str(v) for k, v in one.items()} for one in readings[step]]
        frames[step] = [Drawn(*one) for one in zip(shown, cut, read, strict=True)]
    rates = {
        key: Rate(int(value["hits"]), int(value["count"]))
        for key, value in content.items()
        if isinstance(value, dict) and "hits" in value
    }
    return Scored(name, rates, [bool(hit) for hit in content["hits"]], frames, kept=True)
