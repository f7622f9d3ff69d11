"""Compare the cheap score of checkpoints with a full one, on the built-in world.

    nice -n 15 python scripts/toyworld/measure_scoring.py [--concepts kiwi,boo] [--work FOLDER]

Trains T-LoRA and LoRA on each concept for 400 steps with a checkpoint every 50, scored while
training (`train.select: auto`). Then each checkpoint is scored with more pictures (four of the base
prompt, and one of each background) in 12 denoising steps. Printed are, run by run, the rank
correlation of both balances, how far the full balance of the step kept lies below the best one, and
what both cost. What is done is kept in `<work>/scoring`. About a minute and a half a run on one
free core. docs/choosing.md tells the result.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import fmean

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import numpy as np
import torch
from rich.console import Console

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base
from tlora_cli.foundation.prompts import sampling_prompt
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.base_model import load_text
from tlora_cli.sampling.draw import encode_texts
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.training.checkpoint_scores import Record, best, read_record
from tlora_cli.training.checkpoint_selection import Choosing, TrialDrawing
from tlora_cli.training.display import Display
from tlora_cli.training.from_recipe import sampling_settings
from tlora_cli.training.interruption import Interruption
from tlora_cli.training.loop import train
from tlora_cli.training.prepare import prepare
from tlora_cli.training.run_folder import RunFolder, checkpoints, step_of
from tlora_cli.training.scoring_prompts import Trial
from tlora_cli.training.state import TrainingState, load_weights

BASE = "toy-sdxl"
METHODS = ("tlora", "lora")
STEPS, EVERY = 400, 50
PLAIN, DENOISING = 4, 12
"""Pictures of the base prompt, and denoising steps, of the full score."""


def recipe_of(folder: Path, concept: str, method: str) -> Recipe:
    """Return the recipe of a run."""
    return Recipe.model_validate(
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
            "output": {"dir": str(folder), "trackers": []},
        }
    )


def scored_fully(recipe: Recipe, run: RunFolder) -> Record:
    """Return the full scores of a run's checkpoints; those that are there are read."""
    file, quiet = run.path / "scores-full.json", Console(quiet=True)
    trial = Trial(PLAIN, tuple(BUNDLE.scoring_prompts))
    ready = prepare(recipe, run.class_pictures, lambda text: None)
    models, words = ready.models, (recipe.concept.words, recipe.concept.class_name)
    prompts = [sampling_prompt(text, word) for word in words for text, _ in trial.pictures]
    encoders = load_text(FAMILIES[recipe.family], Base(BASE), models.device, torch.float32)
    texts = encode_texts(models.family, encoders, prompts, "")
    drawn = TrialDrawing(
        models,
        lambda: texts,
        trial,
        replace(sampling_settings(recipe), steps=DENOISING),
        BUNDLE.batch_size,
        *words,
        BUNDLE,
    )
    choosing = Choosing(drawn, recipe.train, file, ready.data.pictures, Interruption())
    state = TrainingState(models.adapter, None)
    with Display(quiet, STEPS, 0) as display:
        for folder in checkpoints(run.checkpoints):
            if choosing.due(step_of(folder)):
                load_weights(run.checkpoints, step_of(folder), state)
                choosing.score(step_of(folder), display)
    return record_at(file)


def record_at(file: Path) -> Record:
    """Return the scores of a file that is there."""
    record = read_record(file)
    assert record is not None, f"{file} was written"
    return record


def rank_correlation(one: list[float], other: list[float]) -> float:
    """Return Spearman's rho of values without ties."""
    first, second = (np.argsort(np.argsort(values)) for values in (one, other))
    return float(np.corrcoef(first, second)[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--concepts", default="kiwi,boo,casa", help="default: kiwi,boo,casa")
    options = parser.parse_args()
    found: list[tuple[float, float, float]] = []
    print("| concept | method | correlation | below the best by | share of the full cost |")
    print("|---|---|---|---|---|")
    for concept in options.concepts.split(","):
        for method in METHODS:
            run = RunFolder(options.work / "scoring" / f"{concept}-{method}")
            recipe = recipe_of(run.path, concept, method)
            outcome = train(recipe, resume=run.recipe.exists(), console=Console(quiet=True))
            if outcome.adapter is None:
                raise SystemExit(f"stopped in {run.path}; the same command goes on")
            full, cheap = scored_fully(recipe, run), record_at(run.scores)
            balance = {score.step: score.balance for score in full.scores()}
            rho = rank_correlation(
                list(balance.values()), [score.balance for score in cheap.scores()]
            )
            below = max(balance.values()) - balance[best(cheap.scores()).step]
            cost = sum(cheap.seconds.values()) / sum(full.seconds.values())
            found.append((rho, below, cost))
            print(f"| {concept} | {method} | {rho:.2f} | {below:.3f} | {cost:.2f} |", flush=True)
    rho, below, cost = (fmean(values) for values in zip(*found, strict=True))
    print(f"| mean | | {rho:.2f} | {below:.3f} | {cost:.2f} |")


if __name__ == "__main__":
    main()
