"""The batch of one forward pass: pictures, noise and timesteps, a function of its number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tlora_cli.families import Conditioning, LatentDistribution
from tlora_cli.formulas.objectives import Objective, TimestepSampler
from tlora_cli.foundation.devices import to_device


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
