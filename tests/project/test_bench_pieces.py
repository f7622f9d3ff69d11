"""A benchmark in a few minutes: what is asked for most comes first, and what was measured stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmark import pieces
from benchmark.cases import BARE, Case
from benchmark.page import BEGIN, END, fill
from benchmark.pieces import (
    COLD,
    PARTS,
    START,
    STEPS,
    TESTS,
    Clock,
    Piece,
    by_worth,
    counted,
    run_all,
)
from benchmark.timing import LEAST_ROUNDS, measure

ROOT = Path(__file__).resolve().parents[2]
WANTED = [
    (BARE, "eager"), ("lora", "eager"), ("tlora", "eager"), ("oft", "eager"), ("tlora", "compile"),
    ("published lora", "eager"), ("published tlora", "eager"),
]  # fmt: skip


def test_a_tlora_step_of_the_first_base_comes_first_and_the_tests_second() -> None:
    order = by_worth(["sdxl", "flux"], PARTS, WANTED, ["lora", "tlora"])
    first = [(BARE, "eager"), ("tlora", "eager"), ("published tlora", "eager")]
    assert (order[0].part, order[0].base, list(order[0].wanted)) == (STEPS, "sdxl", first)
    assert order[1].part == TESTS
    assert [piece.part for piece in order[-2:]] == [START, START]  # minutes, of the processor
    assert order[-3].wanted == [(BARE, "eager"), ("oft", "eager")]


def test_nothing_is_lost_and_nothing_is_measured_that_was_not_asked_for() -> None:
    order = by_worth(["sdxl", "flux"], PARTS, WANTED, ["lora", "tlora"])
    for base in ("sdxl", "flux"):
        timed = [one for piece in order if piece.base == base and piece.part == STEPS
                 for one in piece.wanted if one != (BARE, "eager")]  # fmt: skip
        assert sorted(timed) == sorted(set(WANTED) - {(BARE, "eager")})
        cold = [m for p in order if p.base == base and p.part == COLD for m, _ in p.wanted]
        assert cold == ["tlora", "lora"]
    assert all(piece.part == STEPS for piece in by_worth(["sdxl"], [STEPS], WANTED, ["tlora"]))


def test_pieces_that_do_not_fit_any_more_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pieces.time, "monotonic", lambda: now[0])
    done = []

    def run(piece: Piece) -> None:
        done.append(piece.base)
        now[0] += 50

    order = [Piece(STEPS, "a", least=60), Piece(STEPS, "b", least=60), Piece(STEPS, "c", least=5)]
    left = run_all(order, Clock(100, began=0), run, lambda text: None)
    assert (done, [piece.base for piece in left]) == (["a", "c"], ["b"])
    assert not run_all(order, Clock(None, began=0), run, lambda text: None)
    assert len(run_all(order, Clock(1, began=now[0]), run, lambda text: None)) == 2


def test_a_few_rounds_are_run_in_any_case() -> None:
    case = Case(BARE, "eager", lambda index: torch.tensor(1.0), lambda count: None, 0)
    found = measure([case], torch.device("cpu"), 20, 1, lambda: 0.0)
    assert found["bare eager"]["step"]["rounds"] == LEAST_ROUNDS
    found = measure([case], torch.device("cpu"), 20, 1)
    assert found["bare eager"]["step"]["rounds"] == 20


def test_a_junit_report_is_counted() -> None:
    report = """<testsuites><testsuite><testcase classname="a" name="one"/>
    <testcase classname="a" name="two"><failure/></testcase>
    <testcase classname="b" name="three"><skipped/></testcase></testsuite></testsuites>"""
    assert counted(report) == {"passed": 1, "failed": ["a::two"], "skipped": 1}


def figures(kind: str) -> dict[str, Any]:
    about = {"base": "sdxl", "device": "a card", "kind": kind, "dtype": "bfloat16", "rank": 64,
             "side": 128}  # fmt: skip
    case = {"method": "tlora", "mode": "eager", "step": {"median": 0.1234}, "peak_gb": 14.25,
            "step_ratio": {"median": 1.5}}  # fmt: skip
    return {"about": about, "cases": [case, {**case, "method": "oft"}],
            "cold": {"tlora": {"seconds": 101.4, "steps": 800}}}  # fmt: skip


def test_the_page_gets_the_figures_of_a_gpu(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text((ROOT / "docs" / "performance.md").read_text())
    before = page.read_text()
    (tmp_path / "sdxl.json").write_text(json.dumps(figures("cuda")))
    (tmp_path / "tests.json").write_text(json.dumps({"tests": {"passed": 3}}))
    assert fill(tmp_path, page) == 1
    text = page.read_text()
    row = "| a card | sdxl, 1024 px, bfloat16, rank 64 | `tlora` | eager | 123.4 | 1.50 | 101 (800"
    assert row in text
    assert text.split(BEGIN)[0] == before.split(BEGIN)[0]
    assert text.split(END)[1] == before.split(END)[1]
    assert fill(tmp_path, page) == 1
    assert page.read_text() == text


def test_figures_of_a_cpu_do_not_get_there(tmp_path: Path) -> None:
    (tmp_path / "sdxl.json").write_text(json.dumps(figures("cpu")))
    with pytest.raises(ValueError, match="timed on a GPU"):
        fill(tmp_path, tmp_path / "page.md")
