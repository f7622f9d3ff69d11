"""The page of an evaluation: its pictures with what counts on each, then its figures in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.evaluation.pictures_table import read_pictures_table
from tlora_cli.foundation.bundled import judged_scores
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.foundation.pages.data_urls import thumbnail_url
from tlora_cli.foundation.pages.templates import render
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.foundation.untrusted_json import parse_json

SIDE = 320
"""Longest side of a picture in pixels."""
TINY = 128
"""Pictures up to this size keep their pixels when they are shown larger."""
GROUPS = {
    "suite": ("Asked for something else", 24),
    "base": ("The base prompt", 8),
    "free": ("Prompts without the concept: they should be as the base draws them", 8),
}
"""Group of pictures -> its heading, and how many of it are shown."""
WORDS = (
    (" IS", "likeness to the training pictures (image similarity, mean cosine)", False),
    (" TS", "agreement with the prompts (text similarity, mean cosine)", False),
    (" copying", "nearness to the nearest training picture though something else is asked", True),
    (" copied", "share of pictures that are nearly a training picture", True),
    (" diversity", "how much the pictures of a prompt differ (Vendi score)", False),
    (" drift", "how far pictures without the concept move from the base's", True),
    ("S (alike)", "share of pictures that are alike", False),
    ("S (as asked)", "share of pictures that are as asked", False),
    ("S", "share of pictures that are alike and as asked at once", False),
)
"""Part of a metric's name -> plain words for it, and whether less is better."""


@dataclass(frozen=True)
class Shown:
    """A picture of the page.

    Attributes:
        url: as a data URL.
        prompt: with V* for the concept.
        right: whether all that counts is right; None if nothing counts on it.
        tiny: whether it is so small that its pixels are shown as they are.
    """

    url: str
    prompt: str
    right: bool | None
    tiny: bool


def write_page(folder: Path) -> Path:
    """Write `index.html` into the folder of an evaluation, from what is there, and return it.

    Raises:
        UserError: if the results can't be read.
    """
    try:
        content = parse_json((folder / "results.json").read_text(encoding="utf-8"))
        results = {str(name): float(value) for name, value in content["results"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"the results can't be read ({type(error).__name__}: {error})",
            where=str(folder),
            do="name the output of tlora evaluate",
        ) from error
    rows = read_pictures_table(folder)
    write_text(folder / "index.html", _page(folder, content, results, rows))
    return folder / "index.html"


def _page(
    folder: Path, content: dict[str, Any], results: dict[str, float], rows: list[dict[str, str]]
) -> str:
    counted = _counted(rows)
    pictures = Path(str(content["folder"])) if "folder" in content else folder
    groups = []
    for group, (heading, most) in GROUPS.items():
        own = [row for row in rows if row["group"] == group]
        shown = [_shown(pictures, row, counted) for row in _spread(own, most)]
        if found := [one for one in shown if one is not None]:
            groups.append((heading, len(own), found))
    return render(
        "evaluation/page.html.jinja",
        title=f"Evaluation: {folder.absolute().name}",
        name=folder.absolute().name,
        base=content.get("base", ""),
        count=len(rows),
        sentence=_sentence(results, rows, counted),
        groups=groups,
        metrics=[(name, *about(name), f"{value:.4f}") for name, value in results.items()],
        tiny=all(one.tiny for *_, found in groups for one in found),
    )


def about(metric: str) -> tuple[str, bool]:
    """Return plain words for a metric, and whether less is better."""
    if judged := judged_scores().get(metric):
        return judged.about, judged.less_is_better
    return next(((words, less) for part, words, less in WORDS if part in metric), ("", False))


def _counted(rows: Sequence[dict[str, str]]) -> str:
    """Return the score that is 0 or 1 of each picture and says most; empty if there is none."""
    names = ["S", *(name for name, one in judged_scores().items() if one.all_of)]
    return next((name for name in names if any(row.get(name) for row in rows)), "")


def _sentence(results: dict[str, float], rows: Sequence[dict[str, str]], counted: str) -> str:
    own = [float(row[counted]) for row in rows if counted and row.get(counted)]
    if own:
        return (
            f"{sum(own):.0f} of {len(own)} pictures that were asked for something else are right: "
            f"alike and as asked at once ({counted} {sum(own) / len(own):.2f})."
        )
    parts = [
        f"{words} {results[name]:.2f} ({name})"
        for kind, words in ((" IS", "Likeness"), (" TS (class)", "agreement with prompts"))
        if (name := next((one for one in results if kind in one), ""))
    ]
    return f"{', '.join(parts)}. Such means only tell one adapter from another." if parts else ""


def _spread(rows: Sequence[dict[str, str]], most: int) -> list[dict[str, str]]:
    """Return at most so many rows, from all parts of the list."""
    if len(rows) <= most:
        return list(rows)
    return [rows[number * len(rows) // most] for number in range(most)]


def _shown(folder: Path, row: dict[str, str], counted: str) -> Shown | None:
    """Return a picture; None if it is gone."""
    file = folder / row["file"]
    try:
        picture = read_picture(file, str(file), "RGB")
    except UserError:
        return None
    right = bool(float(row[counted])) if counted and row.get(counted) else None
    tiny = max(picture.size) <= TINY
    return Shown(thumbnail_url(picture, SIDE), row["prompt"], right, tiny)
