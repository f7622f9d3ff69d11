"""Plots, each as PNG and SVG. Only this module uses matplotlib."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.tools.analyze.spectra_of_file import Analysis, ranks_over_time

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
WHOLE = ("B S A", "update")
"""The whole product, whichever there is: of the ortho form with its start, else the update."""


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
    """Mean singular values over the layers, for each matrix of each adapter."""
    with _figure(folder, "spectra", 5.2 * len(analyses), 4.2) as figure:
        for number, one in enumerate(analyses):
            axes = figure.add_subplot(1, len(analyses), number + 1)
            for matrix, when in one.matrices():
                found = [s.values / s.values[0].clamp(min=1e-30) for s in one.of(matrix, when)]
                width = max(len(values) for values in found)
                mean = torch.stack(
                    [torch.nn.functional.pad(v, (0, width - len(v))) for v in found]
                ).mean(0)
                dashes = "--" if when == "start" else "-"
                axes.plot(range(1, width + 1), mean, dashes, label=f"{matrix}, {when}")
            axes.set(
                title=f"{one.name} ({one.method})",
                xlabel="singular value",
                ylabel="size, relative to the largest",
                ylim=(0, 1.05),
            )
            axes.legend(fontsize=9)


def _plot_depth(analyses: Sequence[Analysis], folder: Path) -> None:
    """Effective rank of the whole product by depth, a line for each kind of layer."""
    name = "95% of the energy"
    with _figure(folder, "ranks_by_depth", 5.2 * len(analyses), 4.2) as figure:
        for number, one in enumerate(analyses):
            axes = figure.add_subplot(1, len(analyses), number + 1)
            matrix = next(m for m in WHOLE if one.of(m, "trained"))
            found = one.of(matrix, "trained")
            for kind in dict.fromkeys(spectrum.kind for spectrum in found):
                own = [spectrum for spectrum in found if spectrum.kind == kind]
                ranks = [spectrum.ranks()[name] for spectrum in own]
                axes.plot([spectrum.depth for spectrum in own], ranks, "o-", ms=3, label=kind)
            axes.set(
                title=f"{one.name} ({one.method}): {matrix}",
                xlabel="depth (layers of the kind, from the input)",
                ylabel=f"effective rank ({name})",
            )
            axes.set_ylim(0, max(a.schedule.rank for a in analyses) * 1.05)  # to be compared
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.legend(fontsize=8, ncols=2)


def _plot_schedules(analyses: Sequence[Analysis], folder: Path) -> None:
    """Active rank against timestep, one line an adapter."""
    with _figure(folder, "active_rank", 6.0, 3.8) as figure:
        axes = figure.add_subplot()
        for one in analyses:
            t, ranks = ranks_over_time(one.schedule)
            axes.step(t, ranks, where="post", label=f"{one.name} ({one.schedule.title})")
        axes.set(xlabel="timestep (0: clean, right: noise)", ylabel="active rank")
        axes.set_ylim(bottom=0)
        axes.legend(fontsize=9)
