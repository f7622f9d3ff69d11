"""What is said of results: bootstrap, summary, tables, page."""

from __future__ import annotations

import base64
import csv
import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compare_runs import give_pictures, made_summary
from html_pages import Page
from PIL import Image

from tlora_cli.comparison import page_images
from tlora_cli.comparison.bootstrap import LEAST_PAIRS, Interval, interval, paired_difference
from tlora_cli.comparison.page import page
from tlora_cli.comparison.pareto import Point, front, pareto_svg
from tlora_cli.comparison.summary import Summary, lower_is_better, summarize
from tlora_cli.comparison.tables import overview, write_tables
from tlora_cli.comparison.tasks import Result
from tlora_cli.comparison.verdict import verdict
from tlora_cli.evaluation.result_files import csv_text

# --- bootstrap ------------------------------------------------------------------------------------


def exact(values: list[float]) -> tuple[float, float]:
    """Return the interval of all resamples there are."""
    means = [np.mean(drawn) for drawn in itertools.product(values, repeat=len(values))]
    low, high = np.quantile(means, (0.025, 0.975), method="inverted_cdf")
    return float(low), float(high)


@pytest.mark.parametrize("values", [[1.0, 3.0], [0.0, 1.0, 5.0], [0.2, 0.9, 0.4, 0.4, 0.8]])
def test_intervals_are_those_of_all_resamples(values: list[float]) -> None:
    found = interval(np.array(values))
    low, high = exact(values)
    step = (max(values) - min(values)) / len(values)  # between neighboring means
    assert found.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert found.low == pytest.approx(low, abs=0.15 * step)
    assert found.high == pytest.approx(high, abs=0.15 * step)
    assert found.count == len(values)


def test_of_many_values_the_interval_is_that_of_the_mean() -> None:
    values = np.random.default_rng(3).normal(2.0, 1.5, 400)
    found = interval(values)
    half = 1.96 * values.std() / 20
    assert found.low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_a_constant_difference_is_found_under_any_spread() -> None:
    """Concepts differ by 5, the arms by 0.1: only pairing shows it."""
    baseline = np.array([0.0, 5.0, 1.0, 4.0, 2.0, 3.0])
    found = paired_difference(baseline + 0.1, baseline)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.tells
    alone = interval(baseline)
    assert alone.high is not None and alone.low is not None
    assert alone.high - alone.low > 2
    # Not paired, the same numbers say nothing.
    assert not paired_difference(baseline + 0.1, baseline[::-1]).tells


def test_intervals_are_the_same_each_time_and_need_two_pairs() -> None:
    values = np.array([0.3, 0.1, 0.7])
    assert interval(values) == interval(values.copy())
    one = interval(values[:1])
    assert (one.mean, one.low, one.high, one.count, one.tells) == (0.3, None, None, 1, False)


def test_few_pairs_tell_nothing() -> None:
    assert not interval(np.full(LEAST_PAIRS - 1, 0.5)).tells
    assert interval(np.full(LEAST_PAIRS, 0.5)).tells
    assert interval(np.full(LEAST_PAIRS, -0.5)).tells


# --- summary --------------------------------------------------------------------------------------


@pytest.fixture
def summary(tmp_path: Path) -> Summary:
    return made_summary(tmp_path)


def test_means_and_differences(summary: Summary) -> None:
    lora, lora4, tlora, tlora4, oft = summary.arms
    assert [one.cells for one in summary.arms] == [8, 8, 8, 7, 8]
    own = np.array([0.5 + 0.1 * c + 0.01 * s for c in range(4) for s in (0, 1)])
    assert lora.metrics["TS*"] == interval(own)
    assert lora.baseline is None and lora.differences == {}
    assert tlora.baseline == lora.arm
    difference = tlora.differences["TS*"]
    assert (difference.mean, difference.low, difference.high) == pytest.approx((0.1, 0.1, 0.1))
    assert difference.count == 8
    assert lora4.differences["TS*"].mean == pytest.approx(0)
    assert not lora4.differences["TS*"].tells
    # On the pairs that both have: without otto's second seed, and without what is not a number.
    assert tlora4.differences["TS*"].count == 7
    assert tlora4.differences["TS*"].mean == pytest.approx(0.1)
    assert (oft.metrics["TS*"].count, oft.differences["TS*"].count) == (7, 7)
    assert oft.metrics["leak"].count == 8


def test_s_stands_first_though_older_cells_lack_it(summary: Summary, tmp_path: Path) -> None:
    """Cells of before S* was counted are left out of its means, not taken as 0."""
    results = {
        cell.name: Result({**result.scores, "S*": 0.3}, 1000, 6, 3.0, 0.5, "cpu")
        if cell.arm.method == "tlora" and cell.seed == 1
        else result
        for cell, result in summary.finished
    }
    mixed = summarize(summary.plan, results, {})
    assert mixed.metrics == ["S*", "TS*", "ID*", "leak"]
    lora, _, tlora, *_ = mixed.arms
    assert "S*" not in lora.metrics and "S*" not in tlora.differences
    assert (tlora.metrics["S*"].mean, tlora.metrics["S*"].count) == (pytest.approx(0.3), 4)
    write_tables(mixed, tmp_path)
    text = (tmp_path / "summary.md").read_text()
    assert "| arm | cells | S* | TS* | ID* | leak |" in text
    assert "| lora r2 | 8 |  | 0.6" in text
    assert "| tlora r2 | 8 | 0.300 [0.300, 0.300] | 0.7" in text
    said = "S*: share of pictures in other contexts on which all that was asked"
    assert f"- {said}" in text
    assert overview(mixed).splitlines()[0].split() == ["cells", "S*", "TS*", "ID*", "leak"]
    made = page(mixed, "t")
    assert said in Page(made).words
    heads = [f'<th scope="col">{x}</th>' for x in ("arm", "cells", "S*", "TS*", "ID*", "leak ↓")]
    assert "".join(heads) in made
    assert '<th scope="row">lora r2</th><td>8</td><td>&ndash;</td>' in made.replace("\n", "")


def test_labels_leave_out_what_is_common(summary: Summary) -> None:
    labels = [summary.label(one.arm) for one in summary.arms]
    assert labels == ["lora r2", "lora r4", "tlora r2", "tlora r4", "oft"]


def test_tables(summary: Summary, tmp_path: Path) -> None:
    write_tables(summary, tmp_path)
    rows = list(csv.DictReader((tmp_path / "cells.csv").open()))
    assert len(rows) == 39
    assert rows[0]["cell"] == "lora-r2-pip-s0"
    assert float(rows[0]["TS*"]) == pytest.approx(0.5)
    means = list(csv.DictReader((tmp_path / "summary.csv").open()))
    assert len(means) == 5 * 3
    [row] = [r for r in means if (r["method"], r["rank"], r["metric"]) == ("tlora", "2", "TS*")]
    assert row["baseline"] == "lora-r2"
    assert (row["pairs"], row["difference pairs"], row["difference mean"]) == ("8", "8", "0.1")
    values = json.loads((tmp_path / "summary.json").read_text())
    assert values["missing"] == ["tlora-r4-linear-otto-s1"]
    assert values["arms"][2]["differences"]["leak"]["mean"] == pytest.approx(-0.1)
    text = (tmp_path / "summary.md").read_text()
    assert "| tlora r2 | lora r2 | 8 | +0.100* [+0.100, +0.100] |" in text
    assert "Without a result: tlora-r4-linear-otto-s1." in text
    costs = list(csv.DictReader((tmp_path / "costs.csv").open()))
    assert (costs[0]["seconds a step"], costs[0]["peak memory GB"]) == ("0.5", "0.5")
    assert csv_text([]) == ""


def test_less_is_better_for_some() -> None:
    metrics = ("TS*", "leak", "copy", "clip copying", "dino drift", "clip IS")
    assert [lower_is_better(m) for m in metrics] == [False, True, True, True, True, False]


# --- page -----------------------------------------------------------------------------------------


def point(x: float, y: float, name: str = "a") -> Point:
    return Point(name, "r4", name, Interval(x, x - 0.1, x + 0.1, 5), Interval(y, None, None, 1))


def test_the_front_is_what_nothing_beats() -> None:
    a, b, c, d = point(1, 5), point(2, 4), point(2, 3), point(3, 3)
    assert front([a, b, c, d]) == [a, b, d]
    assert front([a, point(1, 5)]) == [a, point(1, 5)]


def test_the_plot_has_every_point_in_its_frame() -> None:
    points = [point(0.1, 0.9, "lora"), point(0.3, 0.8, "lora"), point(0.2, 0.2, "a<b")]
    text = pareto_svg(points, "TS*", "ID*")
    places = re.findall(r'<circle class="dot( best)?" cx="([\d.]+)" cy="([\d.]+)"', text)
    assert [bool(best) for best, _, _ in places] == [True, True, False]
    x = [float(x) for _, x, _ in places]
    y = [float(y) for _, _, y in places]
    assert x[0] < x[2] < x[1] and y[0] < y[1] < y[2]
    assert all(60 < value < 745 for value in x) and all(15 < value < 410 for value in y)
    assert "a&lt;b" in text and "a<b" not in text
    ticks = [float(t) for t in re.findall(r'text-anchor="middle">(-?[\d.]+)<', text)]
    assert 3 <= len(ticks) <= 8
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    same = pareto_svg([point(0.5, 0.5, name) for name in "abc"], "x", "y")
    labels = re.findall(r'class="mark" x="([\d.]+)" y="([\d.]+)"( text-anchor="end")?', same)
    assert len(set(labels)) == 3, "labels of points at one place lie apart"
    assert pareto_svg([point(0.5, 0.5)], "x", "y")  # one point, or all the same, still has a frame


def test_the_page_holds_everything(summary: Summary) -> None:
    give_pictures(summary)
    text = page(summary, "ranks & <more>")
    found = Page(text)
    assert not found.open, "every tag is closed"
    assert "ranks & <more>" in found.words
    assert verdict(summary)[1] in found.words
    assert found.words.index("has the best TS*") < found.words.index("5 arms, concepts")
    assert all(address.startswith("data:image/jpeg;base64,") for address in found.addresses)
    assert "viewport" in text
    for words in (
        "5 arms, concepts pip, momo, finn, otto, 2 training seeds: 39 of 40 cells finished.",
        "tlora-r4-linear-otto-s1: the loss of step 3 is nan",
        "Image against text similarity",
        "Differences to the baseline",
        "+0.100",
        "leak ↓",
    ):
        assert words in found.words, words
    # Four concepts: a training picture, two of the base prompt and six others for each of 5 arms.
    assert len(found.pictures) == 4 * (1 + 5 * 8)
    with Image.open(io.BytesIO(base64.b64decode(found.pictures[1].partition(",")[2]))) as one:
        assert one.size == (64, 64)
        red, green, _ = one.getpixel((30, 30))  # the first picture of the first cell
        assert abs(red - 7) < 6 and abs(green - 90) < 6
    assert found.words.count("V* number 10") == 4, "prompts of all parts of the list are shown"
    assert len(text) < 1_000_000


def test_the_sentence_says_the_best_arm_and_whether_it_tells(summary: Summary) -> None:
    """By hand, on the first metric: told apart, maybe chance, too few, the baseline, alone."""
    lora, tlora = summary.arms[0], summary.arms[2]
    name = summary.metrics[0]

    def said(difference: Interval | None, best: float = 0.7, arms: int = 2) -> str:
        first = replace(lora, metrics={name: Interval(0.6, 0.5, 0.68, 8)})
        given = {} if difference is None else {name: difference}
        own = Interval(best, best - 0.1, best + 0.1, 8)
        second = replace(tlora, metrics={name: own}, differences=given)
        return verdict(replace(summary, arms=[first, second][2 - arms :]))[1]

    assert said(Interval(0.1, 0.05, 0.15, 8)) == (
        "tlora r2 has the best TS*, 0.70 [0.60, 0.80]: +0.10 [+0.05, +0.15] against lora r2 over "
        "8 pairs, which is more than chance."
    )
    assert said(Interval(0.1, -0.05, 0.2, 8)).endswith("8 pairs, which may be chance.")
    assert said(Interval(0.1, 0.05, 0.15, 5)).endswith("fewer than 6 pairs tell nothing.")
    assert said(Interval(-0.3, -0.4, -0.2, 8), 0.3) == (
        "lora r2 has the best TS*, 0.60 [0.50, 0.68], and the others are compared with it: "
        "1 of 1 is worse by more than chance."
    )
    assert said(Interval(-0.1, -0.4, 0.2, 8), 0.3).endswith("0 of 1 are worse by more than chance.")
    assert said(None).endswith("; it is compared with no other arm.")
    assert said(None, arms=1) == (
        "tlora r2 has TS* 0.70 [0.60, 0.80] over 8 runs; there is nothing to compare it with."
    )
    assert verdict(summarize(summary.plan, {}, {}))[0] == "open"


def test_the_page_stays_small(summary: Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    give_pictures(summary)
    monkeypatch.setattr(page_images, "MAX_PICTURES", 60)
    found = Page(page(summary, "t"))
    assert len([p for p in found.pictures if p]) <= 60 + 4
    monkeypatch.setattr(page_images, "MAX_PICTURES", 20)
    found = Page(page(summary, "t"))
    assert len(found.pictures) == 2 * (1 + 5 * 2)
    assert "Left out to keep the page small: 2 of 4 concepts." in found.words


def test_the_page_does_without_pictures(summary: Summary) -> None:
    found = Page(page(summary, "t"))
    assert not found.open
    assert len(found.pictures) == 4, "the training pictures"
    empty = summarize(summary.plan, {}, {})
    assert "0 of 40 cells finished" in Page(page(empty, "t")).words
