"""The parts of a run, put together from its recipe: step, previews, choice of a checkpoint."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tlora_cli.formulas.objectives import Objective, TimestepSampler
from tlora_cli.foundation.bundled import bundle_of_base
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.train_sections import TrainConfig
from tlora_cli.sampling.draw import describe
from tlora_cli.training.batch import Batch, draw_batch
from tlora_cli.training.execution import choose_execution, make_passes
from tlora_cli.training.from_recipe import preview_prompts, sampling_settings
from tlora_cli.training.interruption import Interruption
from tlora_cli.training.optimizers import lr_factor
from tlora_cli.training.phases import phase_at
from tlora_cli.training.prepare import Prepared
from tlora_cli.training.previews import Previews
from tlora_cli.training.scoring_prompts import batch_of, trial_for, trial_settings
from tlora_cli.training.step import Loss, TrainingStep, forward_backward

if TYPE_CHECKING:
    from tlora_cli.training.checkpoint_selection import Choosing


def make_step(
    recipe: Recipe,
    ready: Prepared,
    optimizer: Any,
    backward: Callable[[Tensor], None],
    clip: Callable[[list[nn.Parameter], float], object],
) -> TrainingStep:
    """Return the training step of a run.

    Args:
        recipe: of the run.
        ready: models and data.
        optimizer: of the adapter.
        backward: runs the backward pass of a scalar.
        clip: scales gradients down.

    Raises:
        UserError: if the machine lacks what the way of running takes.
    """
    train, models, adapter = recipe.train, ready.models, ready.models.adapter
    scheduler = dict(models.pipeline.scheduler.config)
    objective = models.family.objective(scheduler, train.objective)
    loss = Loss(
        models.family,
        adapter.denoiser,
        objective,
        models.dtype,
        train.guidance,
        recipe.concept.prior.weight if recipe.concept.prior else 0.0,
        adapter.penalty,
        train.preserve.weight if train.preserve else 0.0,
        adapter.off,
    )
    execution = choose_execution(recipe, models.device)
    passes = make_passes(
        execution,
        forward_backward(loss, backward),
        adapter.denoiser,
        adapter,
        list(adapter.parameters()),
        models.device,
    )
    return TrainingStep(
        draw=functools.partial(_draw, train, ready, objective, execution == "cuda_graph"),
        passes=passes,
        mean=loss.mean,
        adapter=adapter,
        optimizer=optimizer,
        learning_rate=functools.partial(_learning_rate, train),
        phase=functools.partial(phase_at, steps=train.steps, word_share=train.word_share),
        clip=clip,
        max_grad_norm=train.max_grad_norm,
        accumulation=train.accumulation,
    )


def _draw(
    train: TrainConfig, ready: Prepared, objective: Objective, always: bool, number: int
) -> Batch:
    """Draw forward pass `number` of a run."""
    return draw_batch(
        ready.data.concept,
        ready.data.prior,
        size=train.batch_size,
        seed=train.seed,
        index=number,
        objective=objective,
        timesteps=TimestepSampler(**train.timesteps.model_dump()),
        device=ready.models.device,
        encode=ready.data.encode,
        dropout=ready.data.dropout,
        always=always,
    )


def _learning_rate(train: TrainConfig, step: int, steps: int) -> float:
    return train.optimizer.lr * lr_factor(train.lr_schedule, step, steps)


def make_previews(
    recipe: Recipe, ready: Prepared, folder: Path, interruption: Interruption
) -> Previews | None:
    """Return the previews of a run; None if none are drawn.

    Args:
        recipe: of the run.
        ready: models and texts.
        folder: of all previews.
        interruption: of the run.
    """
    train, base = recipe.train, recipe.base
    if train.preview is None or ready.texts is None:
        return None
    about = describe(
        ready.models.adapter,
        base.model,
        base.revision,
        train.precision,
        train_steps=0,  # here each preview's own step comes
        batch_size=1,
    )
    return Previews(
        config=train.preview,
        prompts=preview_prompts(recipe),
        last=train.steps,
        folder=folder,
        models=ready.models,
        texts=ready.texts,
        settings=sampling_settings(recipe),
        about=about,
        interruption=interruption,
    )


def make_choosing(
    recipe: Recipe, ready: Prepared, file: Path, interruption: Interruption
) -> Choosing | None:
    """Return what chooses the checkpoint that becomes the result; None if that is the last one.

    Args:
        recipe: of the run.
        ready: models, texts and pictures.
        file: of the scores.
        interruption: of the run.

    Raises:
        UserError: if an encoder can't be had, or earlier checkpoints of the run were scored with
            other settings.
    """
    if recipe.train.select != "auto" or ready.texts is None:
        return None
    from tlora_cli.training.checkpoint_selection import (  # imports encoders: a second
        Choosing,
        TrialDrawing,
    )

    class_name, bundle = recipe.concept.class_name, bundle_of_base(recipe.base.model)
    sampling = sampling_settings(recipe)
    settings = trial_settings(sampling, ready.models.family)
    drawn = TrialDrawing(
        models=ready.models,
        texts=ready.texts,
        trial=trial_for(class_name, bundle),
        settings=settings,
        batch_size=batch_of(settings, sampling, bundle),
        concept=recipe.concept.words,
        class_name=class_name,
        bundle=bundle,
    )
    return Choosing(drawn, recipe.train, file, ready.data.pictures, interruption)
