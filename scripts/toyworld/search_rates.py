"""Find learning rate and steps for LoRA and T-LoRA on a built-in base.

    python scripts/toyworld/search_rates.py --base toy-sdxl [--work toyworld-work]
    python scripts/toyworld/search_rates.py --methods lora --rates 1e-3 --concepts momo,luna,otto

Trains every method at every rate on some concepts and scores the checkpoints on the same prompts
and seeds. What is done already is kept in `<work>/rates-<base>.jsonl`, so the search resumes. About
15 minutes a base on two cores. docs/toyworld.md shows the result.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

from rich.console import Console

from tlora_cli.foundation.devices import choose_device
from tlora_cli.recipe.models import Recipe
from tlora_cli.toyworld import studio
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.studio import Studio
from tlora_cli.toyworld.suites import base_prompt, contexts
from tlora_cli.training.loop import train

METHODS = ("lora", "tlora")
RATES = {"toy-sdxl": (1e-4, 3e-4, 1e-3), "toy-flux": (3e-4, 1e-3, 3e-3)}
"""Rates by base. At 1e-4, toy-flux learns nothing of momo in 800 steps with either method."""
STEPS = (100, 200, 400)
TRIED = ("momo", "luna")
PLAIN, PLACED = 15, 24


def run(
    room: Studio, base: str, method: str, rate: float, concept: str, work: Path
) -> list[dict[str, Any]]:
    """Train once and score every checkpoint."""
    folder = work / "rates" / f"{base}-{method}-{rate:g}-{concept}"
    if folder.exists():
        shutil.rmtree(folder)
    one = CONCEPTS[concept]
    recipe = Recipe.model_validate(
        {
            "family": BUNDLE.bases[base],
            "base": base,
            "concept": {"images": f"toy:{concept}/1", "class": one.class_name},
            "adapter": {"method": method},
            "train": {
                "steps": max(STEPS),
                "optimizer": {"name": "adamw", "lr": rate},
                "checkpoint": {"every": min(STEPS), "keep": max(STEPS) // min(STEPS)},
            },
            "output": {"dir": str(folder), "trackers": []},
        }
    )
    train(recipe, console=Console(quiet=True))
    rows = []
    for steps in STEPS:
        file = folder / "checkpoints" / f"checkpoint-{steps:06d}" / "adapter.safetensors"
        tasks = [*base_prompt(one, PLAIN), *contexts(one, PLACED)]
        drawn = room.draw_adapted(tasks, file)
        plain, placed = drawn[:PLAIN], drawn[PLAIN:]
        training = one.scenes()[0]
        rows.append(
            {
                "method": method,
                "lr": rate,
                "steps": steps,
                "concept": concept,
                "S*": studio.success(placed, one).value,
                "ID* base prompt": studio.identity(plain, one).value,
                "ID*": studio.identity(placed, one).value,
                "TS*": studio.prompted(placed).value,
                "leak": studio.leak(placed, training).value,
            }
        )
    shutil.rmtree(folder)
    return rows


def mean(rows: list[dict[str, Any]], name: str) -> str:
    """Return the mean of a score; nothing where a row of the log is from before it."""
    values = [row[name] for row in rows if name in row]
    return f"{sum(values) / len(values):.2f}" if values and len(values) == len(rows) else ""


def _list(text: str) -> list[str]:
    return text.split(",")


def _numbers(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--base", choices=list(BUNDLE.bases), default="toy-sdxl")
    parser.add_argument("--methods", type=_list, default=METHODS)
    parser.add_argument("--rates", type=_numbers, help="default: those of the base")
    parser.add_argument("--concepts", type=_list, default=TRIED)
    options = parser.parse_args()
    rates = options.rates or RATES[options.base]
    log = options.work / f"rates-{options.base}.jsonl"
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    rows = [json.loads(line) for line in lines]
    done = {(row["method"], row["lr"], row["concept"]) for row in rows}
    room = Studio(options.base, choose_device("auto", "fp32", None))
    for concept in options.concepts:
        for rate in rates:
            for method in options.methods:
                if (method, rate, concept) in done:
                    continue
                fresh = run(room, options.base, method, rate, concept, options.work)
                rows += fresh
                with log.open("a", encoding="utf-8") as file:
                    file.writelines(json.dumps(row) + "\n" for row in fresh)
                for row in fresh:
                    print(row, flush=True)
    names = ("S*", "ID* base prompt", "ID*", "TS*", "leak")
    print(f"\n| method | rate | steps | {' | '.join(names)} |")
    print("|---" * (3 + len(names)) + "|")
    for method in options.methods:
        for rate in rates:
            for steps in STEPS:
                found = [
                    row for row in rows
                    if (row["method"], row["lr"], row["steps"]) == (method, rate, steps)
                    and row["concept"] in options.concepts
                ]  # fmt: skip
                cells = " | ".join(mean(found, name) for name in names)
                print(f"| {method} | {rate:g} | {steps} | {cells} |")


if __name__ == "__main__":
    main()
