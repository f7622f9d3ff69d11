"""A figure for each claim: what does both at once, follows, is alike, leaks."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from PIL import Image

from laboratory.claims import CURVE
from laboratory.labels import place_names
from laboratory.matched import COMPARED, apart
from laboratory.results import Pick, Results
from laboratory.verdicts import LIKENESS, METRICS, Claim, named

COLORS = ("#0072b2", "#d55e00")
PANEL = 3.5
"""Width of a panel in inches."""
STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


def plot(claim: Claim, results: Results, folder: Path) -> str:
    """Write a claim's figure; return the name of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    height = 3.6 if claim.across else 1.4 + 0.32 * len(claim.arms)
    metrics = results.having(claim.metrics) or list(claim.metrics)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(max(10.5, PANEL * len(metrics)), height))
        panels = figure.subplots(1, len(metrics), sharey=not claim.across, squeeze=False)[0]
        for axes, metric in zip(panels, metrics, strict=True):
            draw = _curves if claim.across else _bars
            draw(axes, claim, results, metric)
            axes.set_title(claim.metrics[metric])
        if claim.across:
            panels[0].legend()
        return _save(figure, folder, claim.name)


def plot_matched(claim: Claim, results: Results, curve: Results, folder: Path) -> str:
    """Write a claim's arms beside T-LoRA's curve, likeness across; return the name of the file."""
    arms = [(curve, name, arm) for name, arm in CURVE.items()]
    arms += [
        (results, named(name, claim), arm) for name, arm in apart(claim, results, curve).items()
    ]
    with mpl.rc_context(STYLE):
        compared = curve.having(results.having(COMPARED))
        figure = Figure(figsize=(5.25 * len(compared), 5.4))
        panels, names = figure.subplots(1, len(compared), squeeze=False)[0], []
        for axes, metric in zip(panels, compared, strict=True):
            names.append(_dots(axes, arms, metric))
            axes.set_title(f"{METRICS[metric]}, by how alike it is")
            axes.set_xlim(-0.02, 1.02)
            axes.set_ylim(-0.02, 1.02)
            axes.set_xlabel(LIKENESS)
        for axes, own in zip(panels, names, strict=True):
            place_names(axes, own)
        return _save(figure, folder, f"{claim.name}-matched")


def _save(figure: Figure, folder: Path, name: str) -> str:
    """Write a figure as PNG, unless the file shows the same already; return the file's name."""
    path, drawn = folder / f"{name}.png", io.BytesIO()
    figure.savefig(drawn, format="png", dpi=110)
    if not path.exists() or _pixels(path) != _pixels(drawn):
        path.write_bytes(drawn.getvalue())
    return path.name


def _pixels(file: Path | io.BytesIO) -> tuple[tuple[int, int], bytes]:
    """Return a picture's size and colors, without what else the file says."""
    with Image.open(file) as picture:
        return picture.size, picture.convert("RGBA").tobytes()


def _color(arm: Pick) -> str:
    """Return T-LoRA's color, or that of all other methods."""
    return COLORS[0] if arm.method == "tlora" else COLORS[1]


def _dots(
    axes: Any, arms: Sequence[tuple[Results, str, Pick]], metric: str
) -> list[tuple[str, float, float]]:
    """Each arm's means as a dot, their intervals as a cross; the curve's are joined.

    Returns:
        What to write at each dot, and where it is.
    """
    names: list[tuple[str, float, float]] = []
    curve: list[tuple[float, float]] = []
    for results, label, arm in arms:
        x, y = results.mean(arm, LIKENESS), results.mean(arm, metric)
        if x is None or y is None:
            continue
        color = _color(arm)
        if x.low is not None and y.low is not None:  # of more than one pair
            axes.plot([x.low, x.high], [y.mean, y.mean], color=color, lw=1, alpha=0.3)
            axes.plot([x.mean, x.mean], [y.low, y.high], color=color, lw=1, alpha=0.3)
        axes.plot(x.mean, y.mean, "o", color=color)
        names.append((label, x.mean, y.mean))
        if label in CURVE:
            curve.append((x.mean, y.mean))
    if curve:
        axes.plot(*zip(*curve, strict=True), color=COLORS[0])
    return names


def _bars(axes: Any, claim: Claim, results: Results, metric: str) -> None:
    """Each arm's mean as a dot, its interval as a line; the first arm on top."""
    for place, arm in enumerate(claim.arms.values()):
        found = results.mean(arm, metric)
        if found is None:
            continue
        color = _color(arm)
        if found.low is not None:
            axes.plot([found.low, found.high], [place, place], color=color, lw=2.5, alpha=0.55)
        axes.plot(found.mean, place, "o", color=color)
    axes.set_yticks(range(len(claim.arms)), list(claim.arms))
    axes.set_ylim(len(claim.arms) - 0.5, -0.5)
    if metric in METRICS:
        axes.set_xlim(-0.02, 1.02)


def _curves(axes: Any, claim: Claim, results: Results, metric: str) -> None:
    """A line for each series over the claim's axis, its interval as a band."""
    series: dict[str, list[tuple[int, float, float, float]]] = {}
    for label, arm in claim.arms.items():
        name, _, place = label.partition("/")
        found = results.mean(arm, metric)
        if found is not None:
            low, high = (found.mean if end is None else end for end in (found.low, found.high))
            series.setdefault(name, []).append((int(place), found.mean, low, high))
    for color, (name, points) in zip(COLORS[::-1], series.items(), strict=False):
        x, mean, low, high = (list(column) for column in zip(*points, strict=True))
        axes.plot(x, mean, "o-", color=color, label=name)
        axes.fill_between(x, low, high, color=color, alpha=0.15, lw=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(x, [str(one) for one in x])
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel(claim.across)
