"""An adapter file's spectra and effective ranks by kind of layer and depth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tlora_cli.formats import AdapterWeights, read_adapter
from tlora_cli.formulas.convolution import as_matrices
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.formulas.spectra import EFFECTIVE_RANKS, singular_values
from tlora_cli.foundation.errors import UserError
from tlora_cli.methods import PLAIN

UPDATE = "update"
RANK = "95% of the energy"
"""Effective rank that plots and pages show first."""
MATRICES = {
    UPDATE: "all that it adds",
    "B": "one factor",
    "B diag(S)": "with its sizes",
    "B S A": "update and start",
}
"""Matrix -> what it is. Only the update is the same thing for all methods: the ortho form trains
B S A and takes its start B0 S0 A0 off again, which LoRA's B A has not (T-LoRA, eq. 7)."""


@dataclass(frozen=True)
class Spectrum:
    """The singular values of one matrix of one layer.

    Attributes:
        layer: its full name.
        kind: what the layer does, e.g. `attn1 q`.
        depth: place among the layers of its kind, from 0 at the model's input.
        matrix: a name of `MATRICES`.
        when: `start` or `trained`.
        values: in falling order.
    """

    layer: str
    kind: str
    depth: int
    matrix: str
    when: str
    values: Tensor

    def ranks(self) -> dict[str, float]:
        """Return name -> effective rank."""
        return {name: rank(self.values) for name, rank in EFFECTIVE_RANKS.items()}


@dataclass(frozen=True)
class Analysis:
    """All spectra of an adapter.

    Attributes:
        name: of the adapter, for plots.
        method: of the adapter.
        spectra: by layer, matrix and time.
        schedule: the rank schedule.
    """

    name: str
    method: str
    spectra: list[Spectrum]
    schedule: RankSchedule

    @property
    def title(self) -> str:
        """Its name, with the method where the name doesn't say it."""
        same = self.name.lower().replace("-", "") == self.method.replace("_", "")
        return self.name if same else f"{self.name} ({self.method})"

    def of(self, matrix: str, when: str) -> list[Spectrum]:
        """Return the spectra of a matrix at a time."""
        return [one for one in self.spectra if (one.matrix, one.when) == (matrix, when)]

    def matrices(self) -> list[tuple[str, str]]:
        """Return which (matrix, when) there are."""
        return list(dict.fromkeys((one.matrix, one.when) for one in self.spectra))


def analyze(path: Path, name: str | None = None) -> Analysis:
    """Read an adapter file and take the spectra of its layers; no base model is needed.

    Raises:
        UserError: if the file can't be read, or its method has no factors.
    """
    weights = read_adapter(path, ())
    if not weights.low_rank:
        raise UserError(
            f"{weights.info.method} changes the weights themselves and has no factors",
            where=str(path),
            do="name an adapter of a low-rank method",
        )
    schedule = weights.schedule or RankSchedule(weights.rank, weights.rank, kind="constant")
    depths: dict[str, int] = {}
    spectra = []
    for layer in sorted(weights.layers, key=place_in_model):
        kind = kind_of(layer)
        depth = depths.get(kind, 0)
        depths[kind] = depth + 1
        for (matrix, when), values in _values(weights, layer):
            spectra.append(Spectrum(layer, kind, depth, matrix, when, values))
    return Analysis(name or path.stem, weights.info.method or PLAIN, spectra, schedule)


def _values(weights: AdapterWeights, layer: str) -> Iterable[tuple[tuple[str, str], Tensor]]:
    """Yield (matrix, when) and its singular values."""
    down, up = (tensor.double() for tensor in as_matrices(*weights.layers[layer]))
    if weights.copies == 1:
        yield ("B", "trained"), singular_values(up)
        yield (UPDATE, "trained"), singular_values(up, down)
        return
    # The delta form: up = [B - B0, B0], down = [S A ; S A - S0 A0]; rows of A0 have length one.
    rank = len(down) // 2
    now, start = up[:, :rank] + up[:, rank:], up[:, rank:]
    scaled_now, scaled_start = down[:rank], down[:rank] - down[rank:]
    yield ("B", "start"), singular_values(start)
    yield ("B", "trained"), singular_values(now)
    yield ("B diag(S)", "start"), singular_values(start * scaled_start.norm(dim=1))
    yield ("B diag(S)", "trained"), singular_values(now * scaled_now.norm(dim=1))
    yield ("B S A", "start"), singular_values(start, scaled_start)
    yield ("B S A", "trained"), singular_values(now, scaled_now)
    yield (UPDATE, "trained"), singular_values(up, down)


_STAGES = ("down", "mid", "up", "transformer_blocks", "single")


_WITHIN = ("attn", "ff", "norm", "resnets", "downsamplers", "upsamplers")
"""Beginnings of the names of a block's parts that tell its layers apart."""


def place_in_model(layer: str) -> tuple[int, list[int], str]:
    """Return a key that sorts layers from the model's input to its output."""
    stage = next((n for n, word in enumerate(_STAGES) if layer.startswith(word)), len(_STAGES))
    return stage, [int(number) for number in re.findall(r"\d+", layer)], layer


def kind_of(layer: str) -> str:
    """Return what a layer does, e.g. `attn1 q`, `single attn k`, `ff proj`, `resnets conv1`."""
    parts = layer.split(".")
    within = next((part for part in parts if part.startswith(_WITHIN)), "")
    projection = next((part for part in reversed(parts) if not part.isdigit()), layer)
    projection = projection.removeprefix("to_").removesuffix("_proj")
    stage = "single " if layer.startswith("single") else ""
    return f"{stage}{within} {projection}".strip()


def table(analyses: Iterable[Analysis]) -> list[dict[str, str | int | float]]:
    """Return a row for every spectrum, with its effective ranks."""
    return [
        {
            "adapter": one.name,
            "layer": spectrum.layer,
            "kind": spectrum.kind,
            "depth": spectrum.depth,
            "matrix": spectrum.matrix,
            "when": spectrum.when,
            "components": len(spectrum.values),
            "largest": float(spectrum.values[0]),
            **spectrum.ranks(),
        }
        for one in analyses
        for spectrum in one.spectra
    ]


@dataclass(frozen=True)
class Means:
    """Effective ranks of a matrix, means over the layers.

    Attributes:
        matrix, when: as of a `Spectrum`.
        adapter: its name.
        of: how many ranks there are.
        layers: how many layers.
        ranks: name -> effective rank.
    """

    matrix: str
    when: str
    adapter: str
    of: int
    layers: int
    ranks: dict[str, float]


def means_of(analyses: Sequence[Analysis]) -> list[Means]:
    """Return means over the layers; what is alike stands together."""
    means = []
    for matrix in MATRICES:
        for one in analyses:
            for when in ("start", "trained"):
                if found := one.of(matrix, when):
                    ranks = {
                        head: sum(spectrum.ranks()[head] for spectrum in found) / len(found)
                        for head in EFFECTIVE_RANKS
                    }
                    of = len(found[0].values)
                    means.append(Means(matrix, when, one.name, of, len(found), ranks))
    return means


def summary(analyses: Sequence[Analysis]) -> list[str]:
    """Return lines of means over the layers, for a terminal; what is alike stands together."""
    heads = list(EFFECTIVE_RANKS)
    lines = [f"{'matrix':18} {'adapter':16} {'of':>4} " + "".join(f"{head:>19}" for head in heads)]
    for one in means_of(analyses):
        cells = "".join(f"{mean:19.1f}" for mean in one.ranks.values())
        what = f"{one.matrix}, {one.when}"
        lines.append(f"{what:18} {one.adapter[:16]:16} {one.of:4} {cells}")
    lines.append(f"Compare adapters by their {UPDATE}; B S A has the start in it, too.")
    return lines


def ranks_over_time(schedule: RankSchedule) -> tuple[Tensor, Tensor]:
    """Return every timestep 0..T and the active rank there."""
    t = torch.arange(schedule.num_train_timesteps + 1)
    return t, schedule.active_rank(t)
