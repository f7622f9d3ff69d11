"""Tables of docs/lab.md, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from laboratory.matched import COMPARED, Match, apart, curve_of, match
from laboratory.results import COSTS, Pick, Results
from laboratory.verdicts import (
    LIKENESS,
    METRICS,
    Claim,
    Contrast,
    Correlation,
    decide,
    measured,
    named,
)
from tlora_cli.comparison.bootstrap import Interval
from tlora_cli.comparison.tables import table


def shown(found: Interval | None) -> str:
    """Return a mean with its interval; nothing if there is none."""
    if found is None:
        return ""
    if found.low is None or found.high is None:
        return f"{found.mean:.2f}"
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]"


def means(claim: Claim, results: Results) -> list[str]:
    """Return the table of all arms."""
    metrics = results.having(claim.metrics)
    rows = [
        [
            named(label, claim),
            *(shown(results.mean(arm, metric)) for metric in metrics),
        ]
        for label, arm in claim.arms.items()
    ]
    return table(["", *metrics], rows)


def deciding(claim: Claim, results: Results) -> list[str]:
    """Return the table of the contrasts that decide."""
    return _contrasts("decides", decide(claim, results))


def noticed(claim: Claim, results: Results) -> list[str]:
    """Return the table of the contrasts that decide nothing."""
    return _contrasts("noticed", measured(claim.noticed, claim, results))


def costs(arms: Mapping[str, Pick], results: Results) -> list[str]:
    """Return the table of what each arm costs and what comes out."""
    rows, metrics = [], results.having(METRICS)
    for label, arm in arms.items():
        size, steps, seconds, memory = (
            results.median(arm, name) for name in ("parameters", *COSTS)
        )
        if size is None or steps is None or seconds is None or memory is None:
            continue
        scores = (shown(results.mean(arm, metric)) for metric in metrics)
        count = f"{len(results.values(arm, LIKENESS))}"
        rows.append([label, count, f"{steps:.0f}", f"{size:,.0f}", f"{seconds:.0f}",
                     f"{1e3 * seconds / steps:.0f}", f"{memory:.2f}", *scores])  # fmt: skip
    head = ["", "runs", "steps", "parameters", "seconds", "ms a step", "memory GB", *metrics]
    return table(head, rows)


def matched(claim: Claim, results: Results, curve: Results) -> list[str]:
    """Return the table of arms against T-LoRA's curve, where both are equally alike.

    Args:
        claim: whose arms are compared.
        results: of its grid.
        curve: of the grid with T-LoRA's curve.
    """
    over, rows = curve_of(curve), []
    compared = curve.having(results.having(COMPARED))
    for label, arm in apart(claim, results, curve).items():
        found = [match((results, arm), over, LIKENESS, metric) for metric in compared]
        known = next((one for one in found if one is not None), None)
        if known is None:
            continue
        cells = [named(label, claim), f"{known.likeness:.2f}"]
        for one in found:
            cells += _matched(one)
        rows.append(cells)
    head = ["", LIKENESS]
    for metric in compared:
        head += [metric, f"{metric} of T-LoRA there", "less T-LoRA's"]
    return table(head, rows)


def _contrasts(head: str, found: Sequence[tuple[Contrast | Correlation, Interval]]) -> list[str]:
    rows = []
    for contrast, difference in found:
        sign = "more" if contrast.expected > 0 else "less"
        side = "no difference found"
        if difference.tells:
            side = "as expected" if difference.mean * contrast.expected > 0 else "the other way"
        rows.append([contrast.says, contrast.metric, sign, shown(difference), side])
    return table([head, "metric", "expected", "difference", ""], rows)


def _matched(found: Match | None) -> list[str]:
    if found is None:
        return ["", "", ""]
    if found.on_curve is None:
        return [f"{found.value:.2f}", "never so alike, or so little", ""]
    return [f"{found.value:.2f}", f"{found.on_curve:.2f}", shown(found.difference)]
