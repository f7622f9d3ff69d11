"""Results of earlier versions: S* from the readings of each picture, or missing, never 0."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tlora_cli.evaluation.result_files import csv_text
from tlora_cli.evaluation.stored_scores import in_order, read_scores

ROWS: list[dict[str, str | float]] = [
    {"group": "base", "ID*": 1.0},
    {"group": "suite", "ID*": 1.0, "TS*": 1.0, "leak": 0.0},
    {"group": "suite", "ID*": 1.0, "TS*": 0.0, "leak": 1.0},
    {"group": "suite", "ID*": 0.0, "TS*": 1.0, "leak": 0.0},
    {"group": "free"},
]
OLD = {"clip IS": 0.7, "TS*": 0.666667, "ID*": 0.666667, "ID* (base prompt)": 1.0, "leak": 0.333333}


def write(folder: Path, results: dict[str, float], pictures: str | None) -> Path:
    (folder / "results.json").write_text(json.dumps({"results": results}))
    if pictures is not None:
        (folder / "pictures.csv").write_text(pictures)
    return folder


def test_s_is_counted_from_what_was_read_on_each_picture(tmp_path: Path) -> None:
    scores = read_scores(write(tmp_path, OLD, csv_text(ROWS)))
    assert scores.pop("S*") == pytest.approx(1 / 3, abs=1e-6), "one of three, not 2/3 x 2/3"
    assert scores == OLD


def test_judged_scores_come_first(tmp_path: Path) -> None:
    scores = read_scores(write(tmp_path, OLD, csv_text(ROWS)))
    assert list(scores) == ["S*", "TS*", "ID*", "ID* (base prompt)", "leak", "clip IS"]
    assert in_order(["x", "leak", "S*"]) == ["S*", "leak", "x"]


def test_what_a_version_wrote_itself_is_not_counted_again(tmp_path: Path) -> None:
    scores = read_scores(write(tmp_path, {**OLD, "S*": 0.25}, csv_text(ROWS)))
    assert scores["S*"] == 0.25


@pytest.mark.parametrize(
    ("results", "pictures"),
    [
        (OLD, None),
        (OLD, ""),
        (OLD, "group,file\nsuite,a.png\n"),
        (OLD, csv_text(ROWS[:3])),  # of other pictures: their mean is not what the results say
        (OLD, csv_text(ROWS).replace("1.0", "yes")),
        (OLD, "\0"),
        ({**OLD, "TS*": float("nan")}, csv_text(ROWS)),
        ({"clip IS": 0.7}, csv_text(ROWS)),
    ],
    ids=["gone", "empty", "without readings", "others", "no numbers", "binary", "nan", "no judge"],
)
def test_without_readings_s_is_missing(
    results: dict[str, float], pictures: str | None, tmp_path: Path
) -> None:
    scores = read_scores(write(tmp_path, results, pictures))
    assert "S*" not in scores
    assert sorted(scores) == sorted(results)
