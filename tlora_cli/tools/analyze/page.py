"""The page of an analysis: how many ranks an adapter really uses, in a sentence, then plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from tlora_cli.formulas.spectra import EFFECTIVE_RANKS
from tlora_cli.foundation.pages.data_urls import png_url
from tlora_cli.foundation.pages.templates import render
from tlora_cli.tools.analyze.spectra_of_file import (
    MATRICES,
    RANK,
    UPDATE,
    Analysis,
    Means,
    means_of,
)

PLOTS = {
    "spectra": (
        "How fast the singular values fall (spectra)",
        "A line that falls fast: few directions do most of the work. Means over the layers.",
    ),
    "ranks_by_depth": (
        "Where in the model the update is wide (effective rank by depth)",
        "A panel for each kind of layer, from the model's input to its output.",
    ),
    "active_rank": (
        "How many ranks act at which noise (rank schedule)",
        "Timestep 0 is the clear picture; at noisy timesteps fewer ranks act.",
    ),
}
"""File name of a plot -> its heading, and what it says."""


def page(analyses: Sequence[Analysis], folder: Path) -> str:
    """Return the page.

    Args:
        analyses: of the adapters.
        folder: where their plots lie.
    """
    means = means_of(analyses)
    plots = []
    for name, (heading, words) in PLOTS.items():
        with Image.open(folder / f"{name}.png") as picture:
            plots.append((heading, words, png_url(picture.convert("RGB"))))
    return render(
        "tools/analyze/page.html.jinja",
        title=f"Analysis: {', '.join(one.title for one in analyses)}",
        analyses=analyses,
        sentence=" ".join(_sentence(one) for one in means if one.matrix == UPDATE),
        plots=plots,
        heads=list(EFFECTIVE_RANKS),
        rows=[
            (f"{one.matrix}, {one.when}", [one.adapter, one.of, *_numbers(one)]) for one in means
        ],
        matrices=MATRICES,
    )


def _sentence(one: Means) -> str:
    return (
        f"What {one.adapter} adds uses {one.ranks[RANK]:.1f} of {one.of} ranks ({RANK}, mean over "
        f"{one.layers} layers)."
    )


def _numbers(one: Means) -> list[str]:
    return [f"{rank:.1f}" for rank in one.ranks.values()]
