"""Plots, each as PNG and SVG. Only this module uses matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.tools.analyze.spectra_of_file import (
    MATRICES,
    RANK,
    UPDATE,
    Analysis,
    ranks_over_time,
)

STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.hashsalt": PRODUCT,  # the same plot is the same file
}
DOTS_PER_INCH = 130
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""Colors of the adapters, the same in all plots; told apart without seeing red or green (Okabe and
Ito 2008)."""
COLUMNS = 4


@contextmanager
def _figure(folder: Path, name: str, width: float, height: float) -> Iterator[Figure]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height))
        yield figure
        figure.savefig(folder / f"{name}.png", dpi=DOTS_PER_INCH)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def plot_analyses(analyses: Sequence[Analysis], folder: Path) -> None:
    """Write spectra, effective ranks by depth, and active rank against timestep."""
    _plot_spectra(analyses, folder)
    _plot_depth(analyses, folder)
    _plot_schedules(analyses, folder)


def _plot_spectra(analyses: Sequence[Analysis], folder: Path) -> None:
    """Mean singular values over the layers: a panel a matrix, a line an adapter."""
    matrices = [m for m in MATRICES if any(one.of(m, "trained") for one in analyses)]
    started = any(when == "start" for one in analyses for _, when in one.matrices())
    with _figure(folder, "spectra", 1.2 + 3.2 * len(matrices), 4.2) as figure:
        panels = figure.subplots(1, len(matrices), sharex=True, sharey=True, squeeze=False)[0]
        for axes, matrix in zip(panels, matrices, strict=True):
            for color, one in _colored(analyses):
                for when, dashes in (("start", "--"), ("trained", "-")):
                    if found := one.of(matrix, when):
                        mean = _mean_shape([spectrum.values for spectrum in found])
                        axes.plot(range(1, len(mean) + 1), mean, dashes, color=color)
            axes.set(title=f"{matrix}: {MATRICES[matrix]}", ylim=(0, 1.05))
            axes.title.set_fontsize(10)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.supxlabel("number of the singular value", fontsize=11)
        panels[0].set_ylabel("size, relative to the largest")
        dashed = [Line2D([], [], color="0.4", ls="--", label="at the start")] if started else []
        _legend(figure, analyses, dashed)


def _mean_shape(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the mean of falling singular values, each relative to its largest; missing ones: 0."""
    width = max(len(one) for one in values)
    shapes = [one / one[0].clamp(min=1e-30) for one in values]
    padded = [torch.nn.functional.pad(one, (0, width - len(one))) for one in shapes]
    return torch.stack(padded).mean(0)


def _plot_depth(analyses: Sequence[Analysis], folder: Path) -> None:
    """Effective rank of the whole update by depth: a panel a kind of layer, a line an adapter."""
    updates = [(color, one, one.of(UPDATE, "trained")) for color, one in _colored(analyses)]
    kinds = list(dict.fromkeys(spectrum.kind for *_, found in updates for spectrum in found))
    columns = min(COLUMNS, len(kinds))
    rows = -(-len(kinds) // columns)
    with _figure(folder, "ranks_by_depth", 1 + 2.6 * columns, 1.2 + 2 * rows) as figure:
        panels = list(figure.subplots(rows, columns, sharey=True, squeeze=False).flat)
        for axes, kind in zip(panels, kinds, strict=False):
            for color, _, found in updates:
                own = [spectrum for spectrum in found if spectrum.kind == kind]
                ranks = [spectrum.ranks()[RANK] for spectrum in own]
                axes.plot([spectrum.depth for spectrum in own], ranks, "o-", ms=3, color=color)
            axes.set_title(kind, fontsize=10)
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        panels[0].set_ylim(bottom=0)  # after all is drawn: it holds the other end, too
        for axes in panels[len(kinds) :]:
            axes.remove()
        figure.supxlabel("depth: layers of the kind, from the input", fontsize=11)
        figure.supylabel(f"effective rank of the update ({RANK})", fontsize=11)
        _legend(figure, analyses)


def _colored(analyses: Sequence[Analysis]) -> Iterator[tuple[str, Analysis]]:
    """Yield each adapter with its color."""
    for number, one in enumerate(analyses):
        yield COLORS[number % len(COLORS)], one


def _legend(figure: Figure, analyses: Sequence[Analysis], more: Sequence[Line2D] = ()) -> None:
    """Name the adapters above all panels."""
    lines = [Line2D([], [], color=color, label=one.title) for color, one in _colored(analyses)]
    figure.legend(
        handles=[*lines, *more], loc="outside upper center", ncols=4, fontsize=10, frameon=False
    )


def _plot_schedules(analyses: Sequence[Analysis], folder: Path) -> None:
    """Active rank against timestep, one line an adapter."""
    with _figure(folder, "active_rank", 6.0, 3.8) as figure:
        axes = figure.add_subplot()
        for color, one in _colored(analyses):
            t, ranks = ranks_over_time(one.schedule)
            label = f"{one.name} ({one.schedule.title})"
            axes.step(t, ranks, where="post", color=color, label=label)
        axes.set(xlabel="timestep (0: clean, right: noise)", ylabel="active rank")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9)
