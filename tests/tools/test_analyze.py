"""Spectra and effective ranks: against full decompositions, and through the command line."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from small_denoisers import make_transformer, make_unet, stir

from tlora_cli import UserError, attach
from tlora_cli.cli.app import main
from tlora_cli.formulas.spectra import (
    EFFECTIVE_RANKS,
    entropy_rank,
    rank_of_energy,
    rank_of_sum,
    singular_values,
    stable_rank,
)
from tlora_cli.tools.analyze.plots import COLORS, plot_analyses
from tlora_cli.tools.analyze.spectra_of_file import (
    Analysis,
    analyze,
    kind_of,
    place_in_model,
    summary,
    table,
)


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a.double(), b.double(), rtol=0, atol=1e-5)


def test_the_small_core_has_the_singular_values_of_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    up = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    down = torch.randn(6, 30, generator=generator, dtype=torch.float64)
    whole = torch.linalg.svdvals(up @ down)[:6]
    torch.testing.assert_close(singular_values(up, down), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(singular_values(up), torch.linalg.svdvals(up), rtol=0, atol=1e-12)


def test_effective_ranks_of_known_spectra() -> None:
    even = torch.ones(20, dtype=torch.float64)
    assert rank_of_sum(even) == 19
    assert rank_of_energy(even) == 19
    assert entropy_rank(even) == pytest.approx(20)
    assert stable_rank(even) == pytest.approx(20)
    one = torch.tensor([3.0, 0, 0], dtype=torch.float64)
    assert [rank(one) for rank in EFFECTIVE_RANKS.values()] == pytest.approx([1, 1, 1, 1])
    two = torch.tensor([3.0, 1.0], dtype=torch.float64)
    assert (rank_of_sum(two), rank_of_energy(two)) == (2, 2)
    assert entropy_rank(two) == pytest.approx(math.exp(-0.75 * math.log(0.75) + 0.25 * math.log(4)))
    assert stable_rank(two) == pytest.approx(10 / 9)
    none = torch.zeros(3, dtype=torch.float64)
    assert [rank(none) for rank in EFFECTIVE_RANKS.values()] == [0, 0, 0, 0]


def test_an_orthogonal_start_is_of_full_rank_by_construction(tmp_path: Path) -> None:
    """61 of 64 as in the paper's figure: 95% of 64 equal values."""
    assert rank_of_sum(torch.ones(64, dtype=torch.float64)) == 61


def test_the_matrices_of_a_file_are_those_of_the_adapter(tmp_path: Path) -> None:
    adapter = attach(make_unet(), "tlora", 8, 3)
    starts = {n: (p.A0.clone(), p.S0.clone(), p.B0.clone()) for n, p in adapter.layers.items()}
    stir(adapter, 0.05)
    adapter.save(tmp_path / "a.safetensors")
    found = analyze(tmp_path / "a.safetensors")
    assert found.method == "tlora"
    assert (found.schedule.rank, found.schedule.min_rank) == (8, 3)
    by_key = {(s.layer, s.matrix, s.when): s.values for s in found.spectra}
    for name, layer in adapter.layers.items():
        a0, s0, b0 = starts[name]
        a, s, b = layer.A.detach(), layer.S.detach(), layer.B.detach()
        svd = torch.linalg.svdvals
        close(by_key[name, "B", "start"], svd(b0))
        close(by_key[name, "B", "start"], torch.ones(8))
        close(by_key[name, "B", "trained"], svd(b))
        close(by_key[name, "B diag(S)", "start"], svd(b0 * s0))
        close(by_key[name, "B S A", "start"], svd((b0 * s0) @ a0)[:8])
        close(by_key[name, "B S A", "trained"], svd((b * s) @ a)[:8])
        update = (b * s) @ a - (b0 * s0) @ a0
        close(by_key[name, "update", "trained"], svd(update)[:16])
        # S moved apart from A can't be told from the file: its sign and A's length are lost.
        close(by_key[name, "B diag(S)", "trained"], svd(b * (s.abs() * a.norm(dim=1))))


def test_spectra_of_convolutions_are_those_of_their_matrices(tmp_path: Path) -> None:
    model = make_unet()
    adapter = stir(attach(model, "lora", 4, targets="all"), 0.05)
    adapter.save(tmp_path / "a.safetensors")
    found = {
        one.layer: one.values for one in analyze(tmp_path / "a.safetensors").of("update", "trained")
    }
    assert found.keys() == adapter.layers.keys()
    for name in ("down_blocks.0.downsamplers.0.conv", "up_blocks.0.resnets.0.conv_shortcut"):
        layer = adapter.layers[name]
        update = layer.B.detach() @ layer.A.detach()
        close(found[name], torch.linalg.svdvals(update)[:4])


def test_layers_are_sorted_by_place_and_kind() -> None:
    unet = list(attach(make_unet(), "lora", 4).layers)
    assert sorted(unet, key=place_in_model)[0].startswith("down_blocks")
    assert sorted(unet, key=place_in_model)[-1].startswith("up_blocks")
    assert {kind_of(name) for name in unet} == {
        f"attn{n} {part}" for n in (1, 2) for part in ("q", "k", "v", "out")
    }
    flux = list(attach(make_transformer(), "lora", 4).layers)
    kinds = {kind_of(name) for name in flux}
    assert {"attn q", "attn add_q", "single attn k"} <= kinds
    unet = list(attach(make_unet(), "lora", 4, targets="all").layers)
    assert {"ff proj", "ff net", "resnets conv1", "resnets time_emb", "downsamplers conv"} <= {
        kind_of(name) for name in unet
    }
    assert place_in_model("up_blocks.10.x") > place_in_model("up_blocks.9.x")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    made = {}
    for method in ("lora", "tlora", "svdiff"):
        adapter = stir(attach(make_unet(), method, 8), 0.05)
        made[method] = tmp_path / f"{method}.safetensors"
        adapter.save(made[method])
    return made


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr("sys.argv", ["tlora", *map(str, arguments)])
    return main()


def test_the_command_leaves_tables_and_plots(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "analysis"
    arguments = ["--adapter", f"LoRA={files['lora']}", "--adapter", files["tlora"]]
    assert run(monkeypatch, "analyze", *arguments, "--output", out) == 0
    printed = capsys.readouterr().out
    assert "LoRA" in printed
    assert "95% of the sum" in printed
    with (out / "ranks.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = table([analyze(files["lora"], "LoRA"), analyze(files["tlora"], "tlora")])
    assert len(rows) == len(expected)
    assert [row["layer"] for row in rows] == [row["layer"] for row in expected]
    assert float(rows[0]["entropy"]) == pytest.approx(float(expected[0]["entropy"]))
    spectra = json.loads((out / "spectra.json").read_text())
    assert len(spectra) == len(rows)
    for name in ("spectra", "ranks_by_depth", "active_rank"):
        picture = np.asarray(Image.open(out / f"{name}.png").convert("L"))
        assert picture.std() > 5, "the plot is not empty"
        assert (out / f"{name}.svg").read_text().startswith("<?xml")
    assert {path.name for path in out.iterdir()} == {
        "index.html",
        "ranks.csv",
        "spectra.json",
        *(f"{n}.{e}" for n in ("spectra", "ranks_by_depth", "active_rank") for e in ("png", "svg")),
    }


def figures(
    analyses: list[Analysis], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Figure]:
    """Return the figures of an analysis by name."""
    drawn: dict[str, Figure] = {}

    def keep(figure: Figure, file: Path, **_: Any) -> None:
        drawn[file.stem] = figure

    monkeypatch.setattr(Figure, "savefig", keep)
    plot_analyses(analyses, folder)
    return drawn


def lines_of(axes: Any, color: str) -> list[Any]:
    return [line for line in axes.lines if line.get_color() == color]


def test_methods_are_compared_by_the_same_matrix_in_the_same_colors_on_the_same_axes(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [analyze(files["lora"], "LoRA"), analyze(files["tlora"], "mine")]
    drawn = figures(found, tmp_path, monkeypatch)
    depth = drawn["ranks_by_depth"].axes
    assert [axes.get_title() for axes in depth] == [
        f"attn{n} {part}" for n in (1, 2) for part in ("k", "q", "v", "out")
    ]
    assert len({axes.get_ylim() for axes in depth}) == 1
    for axes in depth:
        for color, one in zip(COLORS, found, strict=False):
            update = [s for s in one.of("update", "trained") if s.kind == axes.get_title()]
            [line] = lines_of(axes, color)
            assert list(line.get_ydata()) == [s.ranks()["95% of the energy"] for s in update]
            assert max(line.get_ydata()) <= axes.get_ylim()[1], "nothing is cut off"
    spectra = {axes.get_title().partition(":")[0]: axes for axes in drawn["spectra"].axes}
    assert list(spectra) == ["update", "B", "B diag(S)", "B S A"]
    for matrix, axes in spectra.items():
        whole = [len(lines_of(axes, color)) for color in COLORS[:2]]
        assert whole == {"update": [1, 1], "B": [1, 2]}.get(matrix, [0, 2])  # and its start
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in spectra.values()}) == 1
    first = [s.values / s.values[0] for s in found[1].of("update", "trained")]
    [line] = lines_of(spectra["update"], COLORS[1])
    np.testing.assert_allclose(line.get_ydata(), torch.stack(first).mean(0), atol=1e-12)
    for name in ("ranks_by_depth", "spectra"):
        told = [text.get_text() for text in drawn[name].legends[0].get_texts()]
        assert told[:2] == ["LoRA", "mine (tlora)"]
    assert [line.get_color() for line in drawn["active_rank"].axes[0].lines] == list(COLORS[:2])


def test_the_printed_lines_put_what_is_alike_together(files: dict[str, Path]) -> None:
    found = [analyze(files["lora"], "LoRA"), analyze(files["tlora"], "T")]
    lines = [line.split("  ")[0] for line in summary(found)]
    assert lines[1:6] == ["update, trained"] * 2 + ["B, trained", "B, start", "B, trained"]
    rank = EFFECTIVE_RANKS["95% of the energy"]
    for line, one in zip(summary(found)[1:3], found, strict=True):
        ranks = [rank(spectrum.values) for spectrum in one.of("update", "trained")]
        assert f"{sum(ranks) / len(ranks):.1f}" == line.split()[5]
    assert "by their update; B S A has the start in it" in summary(found)[-1]


def test_mistakes(
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    def refused(*arguments: object) -> str:
        assert run(monkeypatch, "analyze", *arguments) == 2
        text = capfd.readouterr().err
        assert "Traceback" not in text
        return text

    assert "the adapter file does not exist" in refused("--adapter", "none.safetensors")
    assert "svdiff changes the weights themselves" in refused("--adapter", files["svdiff"])
    twice = ["--adapter", files["lora"], "--adapter", files["lora"]]
    assert "two adapters have the same name" in refused(*twice)
    (tmp_path / "analysis").mkdir()
    assert "analysis exists already" in refused("--adapter", files["lora"])
    with pytest.raises(UserError):
        analyze(files["svdiff"])
