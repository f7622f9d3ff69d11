"""The batch of one forward pass: pictures, noise and timesteps, a function of its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        caption: the text that `conditioning` was made of.
        class_text: embeddings of the caption with the class in place of the concept, one row; None
            if the class isn't held to the base's answers.
    """

    latent: LatentDistribution
    conditioning: Conditioning
    weight: Tensor | None = None
    caption: str = ""
    class_text: Conditioning | None = None


Encode = Callable[[str], Conditioning]
"""A caption -> its embeddings, one row."""


@dataclass(frozen=True)
class Dropout:
    """Captions left out at times, so that the concept is learned without words, too.

    Attributes:
        share: of the samples, in [0, 1].
        nothing: embeddings of the empty text, one row.
    """

    share: float
    nothing: Conditioning

    def places(self, seed: int, index: int, size: int) -> list[int]:
        """Return which samples of forward pass `index` lose their caption."""
        chance = torch.rand(size, generator=generator_for(seed, _DROPOUT, index))
        return (chance < self.share).nonzero().flatten().tolist()


@dataclass(frozen=True)
class Batch:
    """Inputs of one forward pass; the first `instances` samples are the concept, the rest prior.

    Attributes:
        latents, noise: (B, C, h, w), fp32.
        timesteps: (B,) on the 0..T scale; on the CPU, so that it can be read without waiting.
        weight: (B, 1, h, w) or None.
        class_conditioning: of the concept's samples, with the class in place of the concept.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    weight: Tensor | None
    instances: int
    class_conditioning: Conditioning | None = None


_NOISE, _ORDER, _DROPOUT, SCENES = 0, 1, 2, 3
"""The uses of a generator, in its key."""


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
                pictures, generator=generator_for(seed, _ORDER, epoch)
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
    encode: Encode | None = None,
    dropout: Dropout | None = None,
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
        encode: encodes the concept's captions anew, for methods that learn a word.
        dropout: of the concept's captions.
    """
    chosen = [examples[i] for i in picture_order(seed, index * size, size, len(examples))]
    if prior:
        chosen += [prior[i] for i in picture_order(seed + 1, index * size, size, len(prior))]
    chance = generator_for(seed, _NOISE, index)
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
    texts = [example.conditioning for example in chosen]
    if encode:
        anew = [encode(example.caption) for example in chosen[:size]]
        texts[:size] = [{**old, **new} for old, new in zip(texts[:size], anew, strict=True)]
    if dropout:
        for place in dropout.places(seed, index, size):
            texts[place] = {**texts[place], **dropout.nothing}
    classes = [
        {**example.conditioning, **example.class_text}
        for example in chosen[:size]
        if example.class_text
    ]
    return Batch(
        torch.stack(latents),
        noise,
        t,
        _rows(texts),
        weight,
        size,
        _rows(classes) if classes else None,
    )


def _rows(texts: Sequence[Conditioning]) -> Conditioning:
    return {key: torch.cat([text[key] for text in texts]) for key in texts[0]}
