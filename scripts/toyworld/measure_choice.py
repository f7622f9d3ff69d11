"""Measure `train.select: auto` on the built-in world: how good is the step it keeps?

    nice -n 15 python scripts/toyworld/measure_choice.py [--concepts pip,finn] [--work FOLDER]

Trains T-LoRA and LoRA on each concept for 800 steps with a checkpoint every 100, scored while
training. Then the judge, which the choice knows nothing of, looks at every checkpoint's pictures of
other prompts and seeds, and the step kept is compared with fixed steps and with the step that the
judge finds best. What is done is kept in `<work>/choice`, so a stopped measurement goes on where it
was. About four minutes a run on one free core, 80 in all. docs/choosing.md tells the result.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import numpy as np
import torch
from rich.console import Console

from tlora_cli.comparison.bootstrap import Interval, interval
from tlora_cli.recipe.models import Recipe
from tlora_cli.toyworld import studio
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.studio import Studio
from tlora_cli.toyworld.suites import base_prompt, contexts
from tlora_cli.training.checkpoint_scores import Record, best, overfitting, read_record
from tlora_cli.training.loop import train
from tlora_cli.training.run_folder import RunFolder

BASE = "toy-sdxl"
METHODS = ("tlora", "lora")
STEPS, EVERY = 800, 100
PLAIN, PLACED = 12, 20
"""Pictures that the judge sees of each checkpoint: of the base prompt, and in other contexts."""
SEED = 5000
"""Seed of the first of them; the choice's own pictures have seeds from 0."""
TRUTH = ("TS*", "ID* (base prompt)", "leak", "balance")

Row = dict[str, Any]


def run_folder(work: Path, concept: str, method: str) -> RunFolder:
    """Return the folder of a run."""
    return RunFolder(work / "choice" / f"{concept}-{method}")


def train_run(work: Path, concept: str, method: str) -> None:
    """Train a run to its end, or find that it is there."""
    run = run_folder(work, concept, method)
    recipe = Recipe.model_validate(
        {
            "family": BUNDLE.bases[BASE],
            "base": BASE,
            "concept": {"images": f"toy:{concept}/1", "class": CONCEPTS[concept].class_name},
            "adapter": {"method": method},
            "train": {
                "steps": STEPS,
                "select": "auto",
                "checkpoint": {"every": EVERY, "keep": STEPS // EVERY},
                "device": "cpu",
            },
            "output": {"dir": str(run.path), "trackers": []},
        }
    )
    outcome = train(recipe, resume=run.recipe.exists(), console=Console(quiet=True))
    if outcome.adapter is None:
        raise SystemExit(f"stopped in {run.path}; the same command goes on")


def judged(room: Studio, work: Path, concept: str, method: str, step: int) -> Row:
    """Return what the judge finds on a checkpoint's pictures."""
    one = CONCEPTS[concept]
    folder = run_folder(work, concept, method).checkpoints
    tasks = [*base_prompt(one, PLAIN, SEED), *contexts(one, PLACED, seed=SEED)]
    drawn = room.draw_adapted(tasks, folder / f"checkpoint-{step:06d}" / "adapter.safetensors")
    plain, placed = drawn[:PLAIN], drawn[PLAIN:]
    right, own = studio.prompted(placed).value, studio.identity(plain, one).value
    return {
        "concept": concept,
        "method": method,
        "step": step,
        "TS*": right,
        "ID* (base prompt)": own,
        "leak": studio.leak(placed, one.scenes()[0]).value,
        "balance": 2 * right * own / (right + own) if right + own else 0.0,
    }


def read_rows(log: Path) -> dict[tuple[str, str, int], Row]:
    """Return the rows that are there, by concept, method and step."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    rows = [json.loads(line) for line in lines]
    return {(row["concept"], row["method"], row["step"]): row for row in rows}


def record_of(work: Path, concept: str, method: str) -> Record:
    """Return the scores of a run."""
    record = read_record(run_folder(work, concept, method).scores)
    assert record is not None, f"{concept} {method} was trained with train.select: auto"
    return record


def report(work: Path, rows: dict[tuple[str, str, int], Row]) -> None:
    """Print run by run what was kept, and the means with their paired differences."""
    every = range(EVERY, STEPS + 1, EVERY)
    runs = [
        (concept, method)
        for concept, method in dict.fromkeys((c, m) for c, m, _ in rows)
        if all((concept, method, step) in rows for step in every)
    ]
    picks: dict[str, Callable[[str, str], int]] = {
        "auto": lambda c, m: best(record_of(work, c, m).scores()).step,
        "400": lambda c, m: 400,
        "800": lambda c, m: 800,
        "judge's best": lambda c, m: max(every, key=lambda s: (rows[c, m, s]["balance"], -s)),
    }
    print("| concept | method | kept | overfitting by | judge's best | share of the time |")
    print("|---|---|---|---|---|---|")
    for concept, method in runs:
        record = record_of(work, concept, method)
        kept, found = picks["auto"](concept, method), picks["judge's best"](concept, method)
        print(
            f"| {concept} | {method} | {kept} | {overfitting(record) or '-'} | {found} "
            f"| {share(work, concept, method):.2f} |"
        )
    for method in METHODS:
        concepts = [c for c, m in runs if m == method]
        if not concepts:
            continue
        print(f"\n{method}, {len(concepts)} concepts: {', '.join(concepts)}\n")
        print(f"| step | {' | '.join(TRUTH)} |")
        print("|---" * (1 + len(TRUTH)) + "|")
        for name, pick in picks.items():
            chosen = [rows[c, method, pick(c, method)] for c in concepts]
            means = (f"{fmean(row[name] for row in chosen):.2f}" for name in TRUTH)
            print(f"| {name} | {' | '.join(means)} |")
    print("\nauto less the other, both methods of a concept averaged; 95% over the concepts\n")
    print(f"| other | {' | '.join(TRUTH)} |")
    print("|---" * (1 + len(TRUTH)) + "|")
    for name, pick in list(picks.items())[1:]:
        cells = (difference(rows, runs, picks["auto"], pick, score) for score in TRUTH)
        print(f"| {name} | {' | '.join(map(written, cells))} |")


def share(work: Path, concept: str, method: str) -> float:
    """Return which part of a run's time went into scoring."""
    lines = run_folder(work, concept, method).metrics.read_text(encoding="utf-8").splitlines()
    spent = sum(record_of(work, concept, method).seconds.values())
    return float(spent / (spent + json.loads(lines[-1])["seconds"]))


def difference(
    rows: dict[tuple[str, str, int], Row],
    runs: Sequence[tuple[str, str]],
    one: Callable[[str, str], int],
    other: Callable[[str, str], int],
    score: str,
) -> Interval:
    """Return the mean difference of a score, paired by concept."""
    by_concept: dict[str, list[float]] = {}
    for c, m in runs:
        own = rows[c, m, one(c, m)][score] - rows[c, m, other(c, m)][score]
        by_concept.setdefault(c, []).append(own)
    return interval(np.array([fmean(values) for values in by_concept.values()]))


def written(found: Interval) -> str:
    """Return a mean with its interval."""
    if found.low is None or found.high is None:
        return f"{found.mean:+.2f}"
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--concepts", default=",".join(CONCEPTS), help="default: all")
    parser.add_argument("--report", action="store_true", help="only show what is there")
    options = parser.parse_args()
    log = options.work / "choice" / "judged.jsonl"
    log.parent.mkdir(parents=True, exist_ok=True)
    rows = read_rows(log)
    concepts = [] if options.report else options.concepts.split(",")
    room = Studio(BASE, torch.device("cpu"))
    for concept, method in ((c, m) for c in concepts for m in METHODS):
        train_run(options.work, concept, method)
        print(concept, method, "trained", flush=True)
        for step in range(EVERY, STEPS + 1, EVERY):
            if (concept, method, step) in rows:
                continue
            row = judged(room, options.work, concept, method, step)
            rows[concept, method, step] = row
            with log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, flush=True)
    report(options.work, rows)


if __name__ == "__main__":
    main()
