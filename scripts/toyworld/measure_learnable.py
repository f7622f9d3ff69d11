"""Measure whether nothing but the method stands between one photo and a concept on a base.

    python scripts/toyworld/measure_learnable.py --base toy-sdxl [--work toyworld-work]

All weights are trained on the four pictures of each concept, whose captions name what may change
(place, position, prop) and not what is private; and Textual Inversion on the same. S*, TS* and ID*
are of contexts that no picture shows. What is done is kept in the work folder, so the script goes
on where it was. docs/toyworld.md shows the result.
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
from tlora_cli.toyworld.captions import prompt
from tlora_cli.toyworld.concepts import CONCEPTS, Concept
from tlora_cli.toyworld.export import write_concept
from tlora_cli.toyworld.factors import chance
from tlora_cli.toyworld.studio import Studio
from tlora_cli.toyworld.suites import base_prompt, contexts
from tlora_cli.training.loop import train

JUDGED = ("pip", "finn", "kiwi", "toto", "otto", "boo", "nova", "mimi")
"""Concepts that play no part in choosing anything."""
METHODS = {"dreambooth_full": {"steps": 2000, "lr": 1e-4}, "textual_inversion": {"steps": 2000}}
PLAIN, PLACED = 15, 60
LEAST = {"S*": 0.9, "worst marking or feature": 0.75}
"""Least scores that all weights are to reach."""


def captioned(concept: Concept, folder: Path) -> Path:
    """Write a concept's pictures, masks and captions into a folder, and return it."""
    if not folder.exists():
        write_concept(folder, concept.name)
    for number, scene in enumerate(concept.scenes(), 1):
        told = {name: scene[name] for name in ("accessory", "background", "position")}
        (folder / f"{number}.txt").write_text(prompt(told, "a V*") + "\n", encoding="utf-8")
    return folder


def run(room: Studio, method: str, concept: Concept, work: Path) -> dict[str, Any]:
    """Train once, and return the scores."""
    pictures = captioned(concept, work / "learnable" / concept.name)
    folder = work / "learnable" / f"{room.name}-{method}-{concept.name}"
    if folder.exists():
        shutil.rmtree(folder)
    settings = dict(METHODS[method])
    rate = settings.pop("lr", None)
    recipe = Recipe.model_validate(
        {
            "family": room.family.name,
            "base": room.name,
            "concept": {
                "images": [str(pictures / f"{number}.png") for number in range(1, 5)],
                "class": concept.class_name,
                "captions": True,
            },
            "adapter": {"method": method},
            "train": {
                **settings,
                **({"optimizer": {"name": "adamw", "lr": rate}} if rate else {}),
                "checkpoint": {"every": settings["steps"], "keep": 1},
            },
            "output": {"dir": str(folder), "trackers": []},
        }
    )
    outcome = train(recipe, console=Console(quiet=True))
    assert outcome.adapter
    tasks = [*base_prompt(concept, PLAIN), *contexts(concept, PLACED)]
    drawn = room.draw_adapted(tasks, outcome.adapter)
    shutil.rmtree(folder)
    plain, placed = drawn[:PLAIN], drawn[PLAIN:]
    return {
        "base": room.name,
        "method": method,
        "concept": concept.name,
        "S*": studio.success(placed, concept).value,
        "TS*": studio.prompted(placed).value,
        "ID*": studio.identity(placed, concept).value,
        "ID* base prompt": studio.identity(plain, concept).value,
        "details": studio.details(placed, concept).value,
        "chance of ID*": round(chance(concept.marking, concept.feature), 4),
    }


def summary(rows: list[dict[str, Any]]) -> list[str]:
    """Return the table's lines, with the mean and the worst marking and feature."""
    names = ["S*", "TS*", "ID*", "ID* base prompt", "details"]
    lines = [f"| method | concept | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    for method in METHODS:
        own = [row for row in rows if row["method"] == method]
        for row in own:
            cells = " | ".join(f"{row[name]:.2f}" for name in names)
            lines.append(f"| {method} | {row['concept']} | {cells} |")
        if not own:
            continue
        means = " | ".join(f"{sum(row[name] for row in own) / len(own):.3f}" for name in names)
        lines.append(f"| {method} | mean | {means} |")
        kinds: dict[str, list[float]] = {}
        for row in own:
            concept = CONCEPTS[row["concept"]]
            for kind in (concept.marking, concept.feature):
                kinds.setdefault(kind, []).append(row["S*"])
        worst = min(kinds, key=lambda kind: sum(kinds[kind]) / len(kinds[kind]))
        value = sum(kinds[worst]) / len(kinds[worst])
        lines.append(f"| {method} | worst: {worst} | {value:.3f} | | | | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--base", choices=list(BUNDLE.bases), default="toy-sdxl")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--concepts", nargs="+", choices=CONCEPTS, default=JUDGED)
    options = parser.parse_args()
    log = options.work / f"learnable-{options.base}.jsonl"
    rows = []
    if log.exists():
        rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    done = {(row["method"], row["concept"]) for row in rows}
    room = Studio(options.base, choose_device("auto", "fp32", None))
    for name in options.concepts:
        for method in options.methods:
            if (method, name) not in done:
                rows.append(run(room, method, CONCEPTS[name], options.work))
                print(rows[-1], flush=True)
                with log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print("\n".join(summary(rows)))


if __name__ == "__main__":
    main()
