"""The page of scored adapters: its sentence, its signs and words, and what it keeps for later."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from html_pages import Page
from judged_pages import ABOUT, LUNA, TASKS, adapter, drawn, write_page
from scipy.stats import binomtest

from tlora_cli.foundation.bundled import version_of
from tlora_cli.foundation.errors import UserError
from tlora_cli.toyworld.report_page import Mark, marks
from tlora_cli.toyworld.scored import Scored, read_scored, write_scored
from tlora_cli.toyworld.suites import base_prompt, contexts

ROOT = Path(__file__).parents[2]


def words(folder: Path, scored: list[Scored], command: str = "") -> str:
    page = Page(write_page(folder, scored, command).read_text(encoding="utf-8"))
    assert page.open == []
    assert all(url.startswith("data:image/png;base64,") for url in page.pictures)
    return " ".join(page.words.split())


def test_the_sentence_says_who_is_right_how_often(tmp_path: Path) -> None:
    good, poor = adapter("ours", [""]), adapter("LoRA", ["smeared", "", "lacking", "elsewhere"])
    text = words(tmp_path, [good, poor])
    assert "✓ Of 7 pictures in other places, ours gets wholly right 7 (S* 1.00)" in text
    count = sum(poor.hits)
    assert f"and LoRA {count} (S* {count / 7:.2f})." in text
    p = binomtest(7 - count, 7 - count).pvalue
    assert count < 6, "said as so many times"
    assert f"prompt and seed only ours is right {7 - count} times, only LoRA never" in text
    assert f"(sign test: p = {p:.2g})" in text
    assert "✗ Of 7 pictures" in words(tmp_path, [poor, good]), "told, too, where ours is worse"
    assert "Right on the same pictures: ours and ours." in words(tmp_path, [good, good])
    assert "Of 7 pictures in other places, ours gets wholly right 7 (S* 1.00)." in words(
        tmp_path, [good]
    )


def test_right_and_wrong_are_words() -> None:
    lacking = marks(drawn(TASKS[0], "lacking"), LUNA)
    assert Mark(False, f"{LUNA.feature}: missing") in lacking
    assert [one.right for one in lacking].count(False) == 1
    elsewhere = marks(drawn(TASKS[0], "elsewhere"), LUNA)
    assert Mark(False, f"{TASKS[0].asked['background']}: city instead") in elsewhere
    assert marks(drawn(TASKS[0], "smeared"), LUNA) == [
        Mark(False, "too smeared for the judge to read")
    ]
    assert all(one.right for one in marks(drawn(TASKS[0], ""), LUNA))


def test_an_adapter_that_ended_earlier_stays_at_its_last_step(tmp_path: Path) -> None:
    long, short = adapter("ours", [""], (0, 100, 200)), adapter("LoRA", [""], (0, 100))
    text = words(tmp_path, [long, short])
    assert text.count("step 100, its last") == len(TASKS)
    assert "Training step 0 100 200" in text


def test_what_is_kept_is_shown_again_and_labelled(tmp_path: Path) -> None:
    before = [adapter("T-LoRA", ["lacking", ""]), adapter("LoRA", ["smeared"])]
    write_scored(tmp_path, ABOUT, before)
    again, command = read_scored(tmp_path, ABOUT, TASKS)
    assert command == ""
    for one, other in zip(before, again, strict=True):
        assert other.kept and (one.name, one.rates, one.hits) == (
            other.name,
            other.rates,
            other.hits,
        )
        for step, pictures in one.frames.items():
            for a, b in zip(pictures, other.frames[step], strict=True):
                assert (a.task, a.reading, a.picture.tobytes()) == (
                    b.task,
                    b.reading,
                    b.picture.tobytes(),
                )
    text = words(tmp_path, [adapter("ours", [""]), *again], "./scripts/demo --all")
    assert "T-LoRA and LoRA: drawn when this program was made, and shipped" in text
    assert "./scripts/demo --all" in text
    assert text.count("; shipped picture") == 2 * 3 * len(TASKS)


@pytest.mark.parametrize("name", ["version", "seed", "prompts", "count"])
def test_scores_of_something_else_are_refused(tmp_path: Path, name: str) -> None:
    write_scored(tmp_path, {**ABOUT, name: "another"}, [adapter("LoRA", [""])])
    with pytest.raises(UserError, match=f"of another {name}"):
        read_scored(tmp_path, ABOUT, TASKS)


@pytest.mark.parametrize("damage", ["missing", "text", "list", "sheet"])
def test_damaged_scores_are_told(tmp_path: Path, damage: str) -> None:
    write_scored(tmp_path, ABOUT, [adapter("LoRA", [""]), adapter("T-LoRA", [""], (0, 50))])
    path = tmp_path / "scores.json"
    if damage == "missing":
        path.unlink()
    elif damage == "sheet":
        (tmp_path / "pictures-2.png").rename(tmp_path / "pictures-1.png")
    else:
        path.write_text({"text": "{", "list": "[]"}[damage])
    with pytest.raises(UserError, match="the scores can't be read"):
        read_scored(tmp_path, ABOUT, TASKS)


def test_the_shipped_pictures_are_of_the_present_base_and_prompts() -> None:
    """Else the demo refuses them: make them anew, as assets/demo/README.md says."""
    training = LUNA.scenes()[0]
    shown = [*contexts(LUNA, 24, training)[:7], *base_prompt(LUNA, 15)[:1]]
    about = {
        "base": "toy-sdxl",
        "version": version_of("toy-sdxl"),
        "concept": "luna",
        "picture": 1,
        "seed": 0,
        "prompts": [task.text for task in shown],
        "count": 24,
    }
    kept, command = read_scored(ROOT / "assets" / "demo" / "luna", about, shown)
    assert [one.name for one in kept] == ["T-LoRA as published", "LoRA"]
    assert command == "./scripts/demo --all"
    assert all(sorted(one.frames) == [0, 100, 200, 300, 400] for one in kept)
    assert all(len(one.hits) == 24 for one in kept)


def test_an_attack_in_a_name_stays_text(tmp_path: Path) -> None:
    attack = '<img src=x onerror="alert(1)">'
    page = write_page(tmp_path, [dataclasses.replace(adapter("x", [""]), name=attack)])
    text = page.read_text(encoding="utf-8")
    assert attack not in text and "&lt;img src=x" in text
    assert json.dumps(attack) not in text
