"""Spectra of a grid's adapters, as more columns of its results."""

from __future__ import annotations

from pathlib import Path

from tlora_cli.tools.analyze.spectra_of_file import Analysis, analyze

RANK_OF_B = "rank of B"
RANK_OF_UPDATE = "rank of the update"
START_SIZE = "start size"


def columns(adapter: Path) -> dict[str, float]:
    """Return effective ranks as means over the layers, and the size of the start.

    RANK_OF_B is the paper's figure: how many singular values of the trained B hold 95% of their
    sum. RANK_OF_UPDATE: how many of the whole update hold 95% of its energy (sum of squares).
    START_SIZE is the mean singular value of B S A at the start, where there is one.
    """
    found = analyze(adapter)
    told = {
        RANK_OF_B: _mean(found, "B", "95% of the sum"),
        RANK_OF_UPDATE: _mean(found, "update", "95% of the energy"),
    }
    if start := found.of("B S A", "start"):
        told[START_SIZE] = float(sum(one.values.mean() for one in start) / len(start))
    return told


def _mean(found: Analysis, matrix: str, rank: str) -> float:
    spectra = found.of(matrix, "trained")
    return sum(one.ranks()[rank] for one in spectra) / len(spectra)
