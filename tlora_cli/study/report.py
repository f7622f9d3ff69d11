"""The report of a study: one page, and its numbers as CSV."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.evaluation.result_files import csv_text
from tlora_cli.foundation.files import write_text
from tlora_cli.foundation.pages.templates import NOTHING, render
from tlora_cli.study.design import Study
from tlora_cli.study.results import Comparison, Results, results_of, source
from tlora_cli.study.shares import Share
from tlora_cli.study.votes import QUESTIONS

PAGE, SHARES, RATERS, VOTES = "report.html", "shares.csv", "raters.csv", "all_votes.csv"
COLUMNS = {
    "concept": "more like the thing",
    "text": "follows the text",
    "overall": "better overall",
}
"""Question -> head of its column."""
WHOLE = "overall"
"""The question that the verdict is about."""


@dataclass(frozen=True)
class Written:
    """A report that was written.

    Attributes:
        files: page and tables.
        verdict: what they say, in sentences.
        shares: of each other method and question: `first`, `other`, `question`, `share` that
            prefers the first, `low` and `high` of its 95% interval, `answers`; None where there
            are too few answers.
        left_out: names of raters who seem not to have looked.
    """

    files: list[Path]
    verdict: list[str]
    shares: list[dict[str, Any]]
    left_out: list[str]


def write_report(study: Study) -> Written:
    """Write the page and the tables into the study's folder.

    Raises:
        UserError: if the votes can't be read, or the folder can't be written.
    """
    found = results_of(study)
    texts = {
        PAGE: page(found),
        SHARES: csv_text(_share_rows(found)),
        RATERS: csv_text(_rater_rows(found)),
        VOTES: csv_text(_vote_rows(found)),
    }
    for name, text in texts.items():
        write_text(study.folder / name, text)
    shares = [
        {
            "first": study.methods[0].name,
            "other": study.methods[one.other].name,
            "question": one.question,
            "share": one.share.value,
            "low": one.share.low,
            "high": one.share.high,
            "answers": one.share.answers,
        }
        for one in found.comparisons
    ]
    files = [study.folder / name for name in texts]
    return Written(files, verdict(found), shares, [one.name for one in found.flagged])


def verdict(found: Results) -> list[str]:
    """Return a sentence for each comparison, on the question that the verdict is about."""
    lines = []
    for one in found.comparisons:
        if one.question != WHOLE:
            continue
        first, other = found.study.methods[0].name, found.study.methods[one.other].name
        share = one.share
        if share.value is None:
            lines.append(f"{first} and {other}: no answers that count yet.")
        elif not share.tells:
            lines.append(
                f"{first} or {other}: these answers don't tell which is better overall "
                f"({_percent(share.value)} for {first}, {_between(share)})."
            )
        else:
            winner, loser = (first, other) if share.value > 0.5 else (other, first)
            most = max(share.value, 1 - share.value)
            ends = (share.low, share.high) if share.value > 0.5 else _turned(share)
            lines.append(
                f"{winner} is preferred over {loser} in {_percent(most)} of the answers "
                f"({_ends(*ends)})."
            )
    if found.flagged:
        names = ", ".join(one.name for one in found.flagged)
        lines.append(f"Left out, since they seem not to have looked: {names}.")
    return lines


def page(found: Results) -> str:
    """Return the page."""
    study = found.study
    first = study.methods[0].name
    return render(
        "study/report.html.jinja",
        title=f"Which one do people prefer: {', '.join(one.name for one in study.methods)}",
        verdict=verdict(found),
        facts={
            "raters": len(found.raters),
            "answers": sum(one.answers for one in found.raters),
            "concepts": len(study.concepts),
            "pairs of pictures": len(study.pairs),
            "raters left out": len(found.flagged),
        },
        first=first,
        rows=[_row(found, one) for one in found.comparisons],
        bars=[_bar(found, one) for one in found.comparisons if one.share.low is not None],
        published=_published_rows(found),
        source=source(),
        speaks=next((c.share.speaks_for for c in found.comparisons if c.share.answers), ""),
        agreement=[
            (COLUMNS[name], [NOTHING if value is None else f"{value:.2f}"])
            for name, value in found.agreement.items()
        ],
        left=None
        if found.left.value is None
        else (_percent(found.left.value), _between(found.left)),
        questions=QUESTIONS,
        raters=[
            (
                one.name,
                [
                    "left out" if one.careless else "fine",
                    str(one.answers),
                    _share_or_nothing(one.kept),
                    _share_or_nothing(one.seen),
                    _share_or_nothing(one.left),
                    f"{one.seconds:.1f} s",
                ],
            )
            for one in found.raters
        ],
        reasons=[(one.name, "; ".join(one.reasons)) for one in found.flagged],
    )


# --- pieces of the page -----------------------------------------------------------------------


def _row(found: Results, one: Comparison) -> dict[str, str]:
    share, whole = one.share, one.everyone
    kind = ""
    if share.value is not None and share.tells:
        kind = "good" if share.value > 0.5 else "bad"
    return {
        "other": found.study.methods[one.other].name,
        "question": COLUMNS[one.question],
        "share": _share_or_nothing(share.value),
        "kind": kind,
        "interval": NOTHING if share.low is None else f"{share.low:.0%} to {share.high:.0%}",
        "answers": str(share.answers),
        "same": _percent(share.same) if share.answers else NOTHING,
        "everyone": _share_or_nothing(whole.value),
    }


def _bar(found: Results, one: Comparison) -> dict[str, Any]:
    other = found.study.methods[one.other].name
    return {
        "name": f"over {other}: {COLUMNS[one.question]}",
        "value": one.share.value,
        "low": one.share.low,
        "high": one.share.high,
        "published": one.published,
    }


def _published_rows(found: Results) -> list[tuple[str, list[str]]]:
    """Return the shares of the paper beside one's own, of comparisons that it has."""
    return [
        (
            f"{found.study.methods[0].name} over {found.study.methods[one.other].name}",
            [
                _share_or_nothing(one.share.value),
                _row(found, one)["interval"],
                f"{one.published:.1%}",
            ],
        )
        for one in found.comparisons
        if one.published is not None
    ]


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _share_or_nothing(value: float | None) -> str:
    return NOTHING if value is None else _percent(value)


def _between(share: Share) -> str:
    return _ends(share.low, share.high)


def _ends(low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return "no interval: too few answers"
    return f"95% interval {low:.0%} to {high:.0%}"


def _turned(share: Share) -> tuple[float | None, float | None]:
    if share.low is None or share.high is None:
        return None, None
    return 1 - share.high, 1 - share.low


# --- tables -----------------------------------------------------------------------------------


def _share_rows(found: Results) -> list[dict[str, Any]]:
    study = found.study
    return [
        {
            "first": study.methods[0].name,
            "other": study.methods[one.other].name,
            "question": one.question,
            "share": _number(one.share.value),
            "low": _number(one.share.low),
            "high": _number(one.share.high),
            "no_difference": _number(one.share.same),
            "answers": one.share.answers,
            "raters": one.share.raters,
            "concepts": one.share.concepts,
            "speaks_for": one.share.speaks_for,
            "share_of_all_raters": _number(one.everyone.value),
            "published": _number(one.published),
            "alpha": _number(found.agreement[one.question]),
        }
        for one in found.comparisons
    ]


def _rater_rows(found: Results) -> list[dict[str, Any]]:
    return [
        {
            "rater": one.name,
            "answers": one.answers,
            "same_again": _number(one.kept),
            "difference_in_identical": _number(one.seen),
            "left": _number(one.left),
            "median_seconds": _number(one.seconds),
            "left_out": "; ".join(one.reasons),
        }
        for one in found.raters
    ]


def _vote_rows(found: Results) -> list[dict[str, Any]]:
    study = found.study
    rows = []
    for vote in found.votes:
        pair = study.pairs[vote.trial.pair]
        sides: Sequence[str] = (study.methods[0].name, study.methods[pair.other].name)
        left, right = sides if vote.trial.first_left else sides[::-1]
        rows.append(
            {
                "rater": found.names[vote.rater],
                "position": vote.trial.position,
                "kind": vote.trial.kind,
                "concept": study.concepts[pair.concept].name,
                "prompt": pair.prompt,
                "left": left,
                "right": right,
                "question": vote.question,
                "answer": vote.answer,
                "seconds": _number(vote.seconds),
            }
        )
    return rows


def _number(value: float | None) -> float | str:
    return "" if value is None else round(value, 4)
