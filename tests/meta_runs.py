"""Runs of a training on the meta device, where no tensor has values."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from small_denoisers import BLOCKS, make_transformer, make_unet
from torch import Tensor
from training_runs import draw_picture, recipe_values

from tlora_cli import attach
from tlora_cli.families import FAMILIES, LatentDistribution
from tlora_cli.methods import METHODS
from tlora_cli.recipe.models import Recipe
from tlora_cli.training import loop
from tlora_cli.training.batch import Example
from tlora_cli.training.prepare import Models, Prepared, TrainingData
from tlora_cli.training.report.live import RunReports
from tlora_cli.training.run_folder import RunFolder

META = torch.device("meta")
SCHEDULER = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def example(family: str, weight: bool) -> Example:
    def empty(*shape: int) -> Tensor:
        return torch.empty(*shape, device=META)

    conditioning = {"prompt_embeds": empty(1, 7, 24)}
    if family == "sdxl":
        conditioning |= {"text_embeds": empty(1, 32), "time_ids": empty(1, 6)}
    else:
        conditioning |= {"pooled_projections": empty(1, 32)}
    latent = LatentDistribution(empty(4, 16, 16), empty(4, 16, 16))
    return Example(latent, conditioning, empty(1, 16, 16) if weight else None)


def prepared(family: str, method: str, schedule: Any) -> Prepared:
    denoiser = {"sdxl": make_unet, "flux": make_transformer}[family]().to(META)
    adapter = attach(denoiser, method, 4, schedule=schedule, blocks=BLOCKS)
    pipeline = SimpleNamespace(scheduler=SimpleNamespace(config=SCHEDULER))
    models = Models(FAMILIES[family], pipeline, adapter, META, torch.float32)
    data = TrainingData(
        [example(family, weight=True), example(family, weight=False)],
        [example(family, weight=False)],
        digest="",
        pictures=[],
    )
    return Prepared(models, data, texts=None)


def meta_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, family: str, method: str, **changes: Any
) -> loop.TrainingLoop:
    """Return a run whose denoiser, pictures and texts are on the meta device."""
    draw_picture(folder / "photo.png")
    size = {"rank": {"rank": 4}, "blocks": {"blocks": BLOCKS}, "none": {}}[METHODS[method].size]
    adapter = {"method": method, **size, **changes.pop("adapter", {})}
    if METHODS[method].masked:
        adapter["min_rank"] = 2
    values = recipe_values(
        Path(f"tiny-{family}"),
        folder,
        adapter=adapter,
        concept__prior={"prompt": "a dog", "count": 1},
        train__batch_size=2,
        train__max_grad_norm=1.0,
        **changes,
    )
    recipe = Recipe.model_validate(values)

    def prepare(recipe: Recipe, *rest: Any) -> Prepared:
        from tlora_cli.training.ranks import rank_schedule

        schedule = rank_schedule(recipe.adapter, recipe.train.seed, FAMILIES[family], SCHEDULER)
        return prepared(family, method, schedule)

    monkeypatch.setattr(loop, "prepare", prepare)
    run = RunFolder(folder / "run")
    return loop.TrainingLoop(recipe, run, Console(quiet=True), RunReports(run, print))
