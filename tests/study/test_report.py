"""`tlora study report`: what the votes of raters with a rule come to, as tables and as a page."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from html_pages import Page, Tables
from study_folders import answer_all, small_study

from tlora_cli.cli.app import main
from tlora_cli.study.design import Study
from tlora_cli.study.results import published
from tlora_cli.study.trials import EQUAL, Trial

ATTACK = '<img src=x onerror="alert(1)">'


def first_always(trial: Trial, question: str, draw: random.Random) -> str:
    """Prefer the first method overall, the other one by the text, and see no likeness in any."""
    if trial.kind == EQUAL or question == "concept":
        return "same"
    return "left" if (question == "overall") == trial.first_left else "right"


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return small_study(tmp_path, ("tlora", "lora", "oft"), concepts=2, pairs=12)


def report(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["tlora", "study", "report", str(study.folder)])
    assert main() == 0


def table(study: Study, name: str) -> list[dict[str, str]]:
    with (study.folder / name).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_shares_are_those_of_the_votes(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("Ann", "Bob", ATTACK, "Dan", "Eve", "Fay"):
        answer_all(study, name, first_always)
    answer_all(study, "Lefty", lambda trial, question, draw: "left")
    report(study, monkeypatch)
    said = capsys.readouterr().out
    assert "tlora is preferred over lora in 100% of the answers (95% interval" in said
    assert "Left out, since they seem not to have looked: Lefty." in said

    shares = {(row["other"], row["question"]): row for row in table(study, "shares.csv")}
    assert len(shares) == 6
    for other in ("lora", "oft"):
        assert float(shares[other, "overall"]["share"]) == 1
        assert float(shares[other, "text"]["share"]) == 0
        likeness = shares[other, "concept"]
        assert float(likeness["share"]) == 0.5 and float(likeness["no_difference"]) == 1
        assert float(shares[other, "overall"]["share_of_all_raters"]) == pytest.approx(
            6.5 / 7, abs=1e-4
        )
        assert shares[other, "overall"]["answers"] == "36" and likeness["raters"] == "6"
    assert shares["lora", "overall"]["published"] == "0.673"
    assert shares["oft", "overall"]["published"] == "0.635"
    assert not shares["lora", "text"]["published"]  # the paper's figure is not known here

    raters = {row["rater"]: row for row in table(study, "raters.csv")}
    assert raters["Lefty"]["left_out"] and not raters["Ann"]["left_out"]
    assert raters["Ann"]["same_again"] == "1.0" and raters["Ann"]["left"] == "0.5"
    votes = table(study, "all_votes.csv")
    assert len(votes) == 7 * 3 * (12 + 6 + 4)
    own = [row for row in votes if row["rater"] == "Ann" and row["question"] == "overall"]
    assert {row[row["answer"]] for row in own if row["kind"] != "equal"} == {"tlora"}

    page = (study.folder / "report.html").read_text("utf-8")
    assert ATTACK not in page and "&lt;img src=x" in page
    read = Tables(page)
    assert "script" not in read.tags and read.addresses == [] and "default-src 'none'" in page
    assert read.row("lora: better overall")[0] == "100%"
    assert read.row("tlora over lora") == ["100%", read.row("lora: better overall")[1], "67.3%"]
    assert "table 3" in read.text and read.row("Lefty")[0] == "left out"
    assert Page(page).open == []


def test_a_study_without_votes_has_a_report(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report(study, monkeypatch)
    assert "tlora and lora: no answers that count yet." in capsys.readouterr().out
    assert "No one has answered yet" in (study.folder / "report.html").read_text("utf-8")
    assert (study.folder / "all_votes.csv").read_text() == ""


def test_raters_who_disagree_tell_nothing(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer_all(study, "Ann", first_always)
    answer_all(
        study,
        "Bob",
        lambda trial, question, draw: {"left": "right", "right": "left", "same": "same"}[
            first_always(trial, question, draw)
        ],
    )
    report(study, monkeypatch)
    assert "tlora or lora: these answers don't tell which is better" in capsys.readouterr().out
    [row] = [one for one in table(study, "shares.csv") if one["question"] == "overall"][:1]
    assert float(row["share"]) == 0.5 and float(row["alpha"]) < -0.9


def test_the_paper_stands_beside_its_own_comparison_alone(tmp_path: Path) -> None:
    turned = small_study(tmp_path, ("lora", "tlora"), concepts=1)
    assert published(turned, 1, "overall") is None
