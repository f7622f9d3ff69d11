"""Optimizers and learning-rate shapes by recipe name."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from typing import Any

import torch

from tlora_cli.foundation.devices import has_fused_optimizers
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.gpu_only import check_gpu
from tlora_cli.recipe.train_sections import LRScheduleConfig, OptimizerConfig
from tlora_cli.training.prodigy import Prodigy

STATE_COPIES = {"adamw": 2.0, "adamw8bit": 0.55, "prodigy": 4.0}
"""Size of an optimizer's state in fp32 copies of the parameters, for planning disk space."""


def make_optimizer(
    config: OptimizerConfig, groups: Sequence[dict[str, Any]]
) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe; `check_optimizer` says if it can be had.

    Args:
        config: of the recipe.
        groups: `params`, and `rate`, what the recipe's learning rate is multiplied with.
    """
    trained = [{**group, "lr": config.lr * group["rate"]} for group in groups]
    # All tensors in one operation: fused where torch has it, else a list at a time.
    fused = has_fused_optimizers(trained[0]["params"][0].device)
    common: dict[str, Any] = {
        "lr": config.lr,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    if config.name == "adamw":
        return torch.optim.AdamW(trained, **common, fused=fused, foreach=not fused)
    if config.name == "prodigy":
        return Prodigy(trained, **common)
    from bitsandbytes import optim

    eight_bit: torch.optim.Optimizer = optim.AdamW8bit(trained, **common)
    return eight_bit


def check_optimizer(config: OptimizerConfig, on_gpu: bool) -> None:
    """Raise a UserError if the optimizer needs a package or a device that is not there."""
    if config.name != "adamw8bit":
        return
    check_gpu("train.optimizer.name", config.name, on_gpu)
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            "adamw8bit needs bitsandbytes",
            where="train.optimizer.name",
            do="pip install 'tlora[cuda]'",
            kind=Status.MISSING,
        )


def lr_factor(config: LRScheduleConfig, step: int, steps: int) -> float:
    """Return what the learning rate is multiplied with at a step (0-based) of `steps`.

    A function of the step alone, so nothing has to be saved to resume.
    """
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    share = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
    shapes = {
        "constant": 1.0,
        "linear": 1 - share,
        "cosine": (1 + math.cos(math.pi * share)) / 2,
        "polynomial": (1 - share) ** 2,
    }
    return shapes[config.name]
