"""The page of scored adapters: who is right how often, and what each draws, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scipy.stats import binomtest

from tlora_cli.foundation.pages.data_urls import png_url
from tlora_cli.foundation.pages.templates import chosen_frames, render
from tlora_cli.toyworld.concepts import Concept
from tlora_cli.toyworld.factors import Scene, chance
from tlora_cli.toyworld.judge import UNREADABLE
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.scored import SUCCESS, Scored
from tlora_cli.toyworld.studio import Drawn

WORDS = {
    SUCCESS: "wholly right",
    "TS*": "all as asked",
    "ID*": "marking and feature",
    "ID* base prompt": "the same, base prompt",
    "details": "eyes and shade",
    "leak": "the old place is back ↓",
    "copy": "nearer to the photo than to the right drawing ↓",
}
"""Name of a score -> plain words for it; ↓: less is better."""


@dataclass(frozen=True)
class Mark:
    """One thing on a picture: whether it is right, and words for it."""

    right: bool
    words: str


def page(
    concept: Concept, training: Scene, base: str, scored: Sequence[Scored], command: str = ""
) -> str:
    """Return the page.

    Args:
        concept: what was learned.
        training: the training picture's scene.
        base: that all were trained on.
        scored: the adapters, in the order of their columns; those that were kept last.
        command: that draws the kept ones anew; empty if it isn't known.
    """
    steps = _steps(scored)
    first = scored[0].frames[scored[0].last]
    return render(
        "toyworld/report.html.jinja",
        title=f"{concept.name}: {', '.join(one.name for one in scored)}",
        concept=concept,
        scene=training,
        training=png_url(draw(training).image),
        base=base,
        scored=scored,
        kept=[one.name for one in scored if one.kept],
        command=command,
        kind=_kind(scored),
        sentence=_sentence(scored),
        compared=_compared(scored),
        words=WORDS,
        chance=chance(concept.marking, concept.feature),
        steps=steps,
        rows=[(n, one.task, draw(training.changed(**one.task.asked))) for n, one in
              enumerate(first)],
        asked=lambda task: [*task.asked.values(), concept.marking, concept.feature],
        png_url=png_url,
        marks=lambda drawn: marks(drawn, concept),
    )  # fmt: skip


def marks(drawn: Drawn, concept: Concept) -> list[Mark]:
    """Return what the judge reads on a picture, each with whether it is right."""
    wanted = {**drawn.task.asked, "marking": concept.marking, "feature": concept.feature}
    if UNREADABLE in drawn.reading.values():
        return [Mark(False, "too smeared for the judge to read")]
    found = []
    for name, value in wanted.items():
        read = drawn.reading[name]
        if read == value:
            found.append(Mark(True, value))
        elif read == "none":
            found.append(Mark(False, f"{value}: missing"))
        else:
            found.append(Mark(False, f"{value}: {read} instead"))
    return found


def _steps(scored: Sequence[Scored]) -> list[int]:
    """Return the steps of the slider; of adapters without earlier steps, their end alone."""
    followed = [one for one in scored if len(one.frames) > 1]
    if not followed:
        return [max(one.last for one in scored)]
    ends = {one.last for one in followed}
    return chosen_frames(sorted({step for one in followed for step in one.frames}), ends)


def _kind(scored: Sequence[Scored]) -> str:
    """Return whether the first adapter is right more often than each of the others."""
    own, *others = (one.rates[SUCCESS].value for one in scored)
    if not others:
        return "plain"
    return "good" if own > max(others) else "bad"


def _sentence(scored: Sequence[Scored]) -> str:
    """Return how often each adapter is wholly right."""
    count = scored[0].rates[SUCCESS].count
    own, *others = (
        f"{one.rates[SUCCESS].hits} (S* {one.rates[SUCCESS].value:.2f})" for one in scored
    )
    told = [f"{one.name} {text}" for one, text in zip(scored[1:], others, strict=True)]
    more = "".join(f", {one}" for one in told[:-1]) + (f" and {told[-1]}" if told else "")
    return f"Of {count} pictures in other places, {scored[0].name} gets wholly right {own}{more}."


def _times(count: int) -> str:
    return {0: "never", 1: "once"}.get(count, f"{count} times")


def _compared(scored: Sequence[Scored]) -> list[str]:
    """Return of each other adapter how likely chance alone makes such a difference to the first."""
    lines = []
    own = scored[0]
    for other in scored[1:]:
        alone = sum(a and not b for a, b in zip(own.hits, other.hits, strict=True))
        against = sum(b and not a for a, b in zip(own.hits, other.hits, strict=True))
        if alone + against == 0:
            lines.append(f"Right on the same pictures: {own.name} and {other.name}.")
            continue
        p = binomtest(alone, alone + against).pvalue
        lines.append(
            f"On the same prompt and seed only {own.name} is right {_times(alone)}, only "
            f"{other.name} {_times(against)} (sign test: p = {p:.2g})."
        )
    return lines
