"""Every kind of page, made of made-up runs without any training, and a browser to open them in."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from compare_runs import give_pictures, made_summary
from judged_pages import adapter, write_page
from run_reports import draw_preview, make_run, records
from small_denoisers import make_unet, stir
from training_runs import draw_picture

from tlora_cli import attach
from tlora_cli.comparison.page import page as comparison_page
from tlora_cli.evaluation.page import write_page as evaluation_page
from tlora_cli.evaluation.result_files import csv_text
from tlora_cli.foundation.pages.markdown import markdown_page
from tlora_cli.tools.analyze.page import page as analysis_page
from tlora_cli.tools.analyze.spectra_of_file import analyze
from tlora_cli.training.report.live import write_report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
STEPS = (0, 10, 20, 30, 40, 50, 60)


def run_page(folder: Path) -> Path:
    """Return the report of a run with everything: previews, scores, masks, notes."""
    run = make_run(folder, records(60), adapter={"rank": 8, "min_rank": 2})
    other = draw_picture(folder / "other.png", seed=3)
    for step in STEPS:
        for prompt in ("a photo of a V* in the snow", "a V* as " + "an oil painting " * 5):
            draw_preview(run, step, prompt, folder / "photo.png" if step > 30 else other)
    cosines = random.Random(0)

    def seen(alike: float, agreeing: float) -> dict[str, Any]:
        noise = [cosines.uniform(-0.01, 0.01) for _ in range(5)]
        return {
            "likeness": {"dino": [alike + one for one in noise]},
            "agreement": [agreeing + one for one in noise],
        }

    ends = {"base": seen(0.2, 0.3), "copier": seen(1.0, 0.1)}
    steps = {str(step): seen(0.2 + step / 100, 0.31 - step / 600) for step in STEPS[1:]}
    seconds = dict.fromkeys(steps, 1.0)
    scores = {"version": 1, "suite": {}, **ends, "steps": steps, "seconds": seconds}
    (run / "scores.json").write_text(json.dumps(scores))
    return write_report(run)


def plain_run_page(folder: Path) -> Path:
    """Return the report of a run that has measured nothing and drawn nothing."""
    return write_report(make_run(folder, records(3)))


def demo_page(folder: Path) -> Path:
    """Return the page of three scored adapters."""
    scored = [
        adapter("our recipe", ["", "lacking", ""], STEPS[:4]),
        adapter("T-LoRA as published", ["smeared", ""], STEPS[:3]),
        adapter("LoRA", ["smeared", "elsewhere"], STEPS[:3]),
    ]
    return write_page(folder, scored, "./scripts/demo --all")


def compare_page(folder: Path) -> Path:
    """Return the page of a comparison."""
    summary = made_summary(folder)
    give_pictures(summary)
    file = folder / "index.html"
    file.write_text(comparison_page(summary, "ranks & more"), encoding="utf-8")
    return file


def evaluate_page(folder: Path) -> Path:
    """Return the page of an evaluation."""
    rows: list[dict[str, Any]] = []
    for group, count in (("suite", 12), ("base", 4), ("free", 3)):
        for number in range(count):
            name = f"pictures/{group}/{number}.png"
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            draw_picture(folder / name, seed=number)
            row = {"group": group, "prompt": f"a V* in place {number}", "file": name}
            rows.append({**row, "S": float(number % 3 == 0)} if group == "suite" else row)
    (folder / "pictures.csv").write_text(csv_text(rows), encoding="utf-8")
    names = ("S", "S (alike)", "clip IS (masked)", "clip TS (class)", "clip copied", "clip drift")
    results = {name: 0.25 * number for number, name in enumerate(names)}
    (folder / "results.json").write_text(json.dumps({"base": "toy-sdxl", "results": results}))
    return evaluation_page(folder)


def analyze_page(folder: Path) -> Path:
    """Return the page of an analysis of two adapters, with pictures in place of plots."""
    found = []
    for method in ("tlora", "lora"):
        made = attach(make_unet(), method, 8, 3 if method == "tlora" else None)
        stir(made, 0.05)
        made.save(folder / f"{method}.safetensors")
        found.append(analyze(folder / f"{method}.safetensors", method))
    for name, size in {"spectra": 700, "ranks_by_depth": 600, "active_rank": 300}.items():
        draw_picture(folder / f"{name}.png", size=size)
    file = folder / "index.html"
    file.write_text(analysis_page(found, folder), encoding="utf-8")
    return file


def card_page(folder: Path) -> Path:
    """Return a model card, as it is looked at before the upload."""
    draw_picture(folder / "a.png")
    card = "| | prompt |\n|---|---|\n| ![a dog](a.png) | a dog in the snow<br>seed 3 |\n"
    code = "```python\n" + "pipe.load_lora_weights('a')  # a long line\n" * 2 + "```\n"
    text = f"# A dog\n\nSee [the paper](https://arxiv.org/abs/2507.05964).\n\n{card}\n{code}"
    file = folder / "card.html"
    file.write_text(markdown_page(text, folder, "A dog"), encoding="utf-8")
    return file


PAGES: dict[str, Callable[[Path], Path]] = {
    "report": run_page,
    "report of little": plain_run_page,
    "demo": demo_page,
    "compare": compare_page,
    "evaluate": evaluate_page,
    "analyze": analyze_page,
    "publish card": card_page,
}
"""Name of a kind of page -> makes one in a folder of its own."""


@contextmanager
def browser() -> Iterator[Any]:
    """Start the distribution's Chromium; without it, or without Playwright, the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    if not BROWSER:
        pytest.skip("no Chromium is installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()
