"""Measure how well S, by similarities and thresholds, agrees with the judge's S*.

    tlora compare grid.yaml        # adapters of concepts of the built-in world, on a built-in base
    python scripts/toyworld/measure_success.py --runs runs/grid [--look-alikes]

Reads the finished cells of a comparison and leaves them as they are. Photographs are the four
pictures of each concept; other things are 20 random drawings of its class, with --look-alikes also
of its color. docs/evaluate.md shows the result. The rank correlation is that of the cells' shares.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import shutil
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tlora_cli.evaluation.real_pictures import PairSettings
from tlora_cli.evaluation.run import Evaluation, evaluate_adapter
from tlora_cli.toyworld.concepts import CONCEPTS, Concept
from tlora_cli.toyworld.factors import PRIVATE, draw_scene
from tlora_cli.toyworld.renderer import draw

OTHERS = 20
PARTS = {"S": "S*", "S (alike)": "ID*", "S (as asked)": "TS*"}
"""Share by thresholds -> what the judge counts of the same."""
Answers = NDArray[np.bool_]


def draw_others(concept: Concept, folder: Path, look_alikes: bool) -> str:
    """Draw other things of a concept's class; none has both of its private attributes."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(concept.name)
    fixed = {"class": concept.class_name} | ({"color": concept.color} if look_alikes else {})
    number = 0
    while number < OTHERS:
        scene = draw_scene(rng, None).changed(**fixed)
        if any(scene[name] != concept.values[name] for name in PRIVATE):
            draw(scene).image.save(folder / f"{number:02d}.png")
            number += 1
    return str(folder)


def measure(cell: Path, work: Path, look_alikes: bool) -> dict[str, Answers]:
    """Return of each picture of a cell whether it counts, by thresholds and by the judge."""
    stamp = json.loads((cell / "cell.json").read_text(encoding="utf-8"))
    images, settings = stamp["recipe"]["concept"]["images"], stamp["evaluate"]
    [name] = {one.removeprefix("toy:").partition("/")[0] for one in np.atleast_1d(images)}
    folder = work / cell.name
    if not folder.exists():
        shutil.copytree(cell / "evaluation", folder)
    others = draw_others(CONCEPTS[name], work / f"others-{name}-{look_alikes}", look_alikes)
    counts: dict[str, Any] = {
        key: settings[key] for key in ("seed", "count", "base_count", "free_count", "batch_size")
    }
    job = Evaluation(
        output=folder,
        prompts=None,
        metrics={"clip": None, "dino": None},
        images=images,
        device="cpu",
        pairs=PairSettings((f"toy:{name}",), (others,)),
        **counts,
    )
    found = evaluate_adapter(cell / "run", job, lambda _: None, lambda *_: None)
    with (folder / "pictures.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("S")]

    def column(title: str) -> NDArray[np.float64]:
        return np.array([float(row[title]) for row in rows])

    least = found.details["success"]
    answers = {"S": column("S") == 1} | {name: column(name) == 1 for name in PARTS.values()}
    answers["S (alike)"] = column("S likeness") >= least["alike"]["threshold"]
    answers["S (as asked)"] = column("clip TS (class)") >= least["as asked"]["threshold"]
    return answers


def kappa(a: Answers, b: Answers) -> float:
    """Return Cohen's kappa: agreement beyond that of two who answer as often by chance."""
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=Path, required=True, help="folder of a comparison")
    parser.add_argument("--work", type=Path, default=Path("toyworld-work/success"))
    parser.add_argument("--look-alikes", action="store_true", help="others of the same color, too")
    options = parser.parse_args()
    cells = []
    for result in sorted((options.runs / "cells").glob("*/result.json")):
        cells.append(measure(result.parent, options.work, options.look_alikes))
        means = {name: f"{answers.mean():.2f}" for name, answers in cells[-1].items()}
        print(result.parent.name, means, flush=True)
    print(f"\n| | share | judge | share | the same | kappa | rank correlation |\n{'|---' * 7}|")
    for name, judged in PARTS.items():
        ours, theirs = (np.concatenate([cell[key] for cell in cells]) for key in (name, judged))
        same = f"{(ours == theirs).mean():.2f} | {kappa(ours, theirs):.2f}"
        of_cells = [[cell[key].mean() for cell in cells] for key in (name, judged)]
        ranks = f"{spearmanr(*of_cells).statistic:.2f}"
        print(f"| {name} | {ours.mean():.2f} | {judged} | {theirs.mean():.2f} | {same} | {ranks} |")


if __name__ == "__main__":
    main()
