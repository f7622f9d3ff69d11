"""One training step, as pure functions of what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tlora_cli.families import Conditioning, Family, LatentDistribution
from tlora_cli.formulas.objectives import Objective, TimestepSampler, squared_error


@dataclass(frozen=True)
class Example:
    """A training picture, encoded.

    Attributes:
        latent: its distribution under the VAE, (C, h, w).
        conditioning: text and size, one row.
        weight: (1, h, w), how much each place of the latent counts; None: all alike.
    """

    latent: LatentDistribution
    conditioning: Conditioning
    weight: Tensor | None = None


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass; the first `instances` samples are the concept, the rest prior.

    Attributes:
        latents, noise: (B, C, h, w), fp32.
        timesteps: (B,) on the 0..T scale; on the CPU, so that it can be read without waiting.
        weight: (B, 1, h, w) or None.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    weight: Tensor | None
    instances: int


def generator_for(*key: int) -> torch.Generator:
    """Return a CPU generator that is a function of the key (seed, step, ...).

    Because every random number of a step comes from such a generator, a resumed run is the same
    run, and what is drawn does not depend on the device.
    """
    state = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device; the host does not wait until it is there."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def picture_order(seed: int, first: int, count: int, pictures: int) -> list[int]:
    """Return which pictures samples first, first + 1, ... use: each epoch is its own shuffle."""
    orders: dict[int, list[int]] = {}
    chosen = []
    for sample in range(first, first + count):
        epoch, place = divmod(sample, pictures)
        if epoch not in orders:
            orders[epoch] = torch.randperm(
                pictures, generator=generator_for(seed, 1, epoch)
            ).tolist()
        chosen.append(orders[epoch][place])
    return chosen


def draw_batch(
    examples: Sequence[Example],
    prior: Sequence[Example],
    *,
    size: int,
    seed: int,
    index: int,
    objective: Objective,
    timesteps: TimestepSampler,
    device: torch.device,
) -> Batch:
    """Draw forward pass number `index` of a run.

    Args:
        examples: the concept's pictures.
        prior: pictures of the class; if any, as many again join the batch.
        size: samples of the concept.
        seed: of the run.
        index: number of the forward pass, counted over the whole run.
        objective: says where timesteps begin.
        timesteps: says which are drawn.
        device: where the batch goes.
    """
    chosen = [examples[i] for i in picture_order(seed, index * size, size, len(examples))]
    if prior:
        chosen += [prior[i] for i in picture_order(seed + 1, index * size, size, len(prior))]
    chance = generator_for(seed, 0, index)
    t = timesteps.draw(len(chosen), objective, chance)
    shape = chosen[0].latent.mean.shape
    posterior_noise = to_device(torch.randn(len(chosen), *shape, generator=chance), device)
    noise = to_device(torch.randn(len(chosen), *shape, generator=chance), device)
    latents = [
        example.latent.sample(draw) for example, draw in zip(chosen, posterior_noise, strict=True)
    ]
    weight = None
    if any(example.weight is not None for example in (*examples, *prior)):  # always, or never
        even = torch.ones(1, *shape[1:], device=device)
        weight = torch.stack([even if e.weight is None else e.weight for e in chosen])
    conditioning = {
        key: torch.cat([example.conditioning[key] for example in chosen])
        for key in chosen[0].conditioning
    }
    return Batch(torch.stack(latents), noise, t, conditioning, weight, size)


def sample_losses(
    family: Family,
    denoiser: nn.Module,
    objective: Objective,
    batch: Batch,
    *,
    dtype: torch.dtype,
    guidance: float,
) -> Tensor:
    """Return the loss of each sample of a batch, (B,).

    The denoiser is called once, under the mask of the batch's timesteps, which stays in force
    until its next call and so through the backward pass.
    """
    t = to_device(batch.timesteps, batch.latents.device)
    noisy = objective.corrupt(batch.latents, batch.noise, t).to(dtype)
    prediction = family.predict(denoiser, noisy, t, batch.conditioning, guidance)
    target = objective.target(batch.latents, batch.noise, t)
    return squared_error(prediction, target, batch.weight)


def mean_loss(losses: Tensor, instances: int, prior_weight: float) -> Tensor:
    """Return the loss of a batch: mean over the concept plus weighted mean over the prior.

    Args:
        losses: (B,), of which the first `instances` are the concept's.
        instances: how many.
        prior_weight: of the others, if there are any.
    """
    loss = losses[:instances].mean()
    if instances < len(losses):
        loss = loss + prior_weight * losses[instances:].mean()
    return loss


def compute_loss(
    family: Family,
    denoiser: nn.Module,
    objective: Objective,
    batch: Batch,
    *,
    dtype: torch.dtype,
    guidance: float,
    prior_weight: float,
) -> Tensor:
    """Return the loss of a batch; see `sample_losses` and `mean_loss`."""
    losses = sample_losses(family, denoiser, objective, batch, dtype=dtype, guidance=guidance)
    return mean_loss(losses, batch.instances, prior_weight)
