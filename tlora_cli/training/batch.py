"""The batch of one forward pass: pictures, noise and timesteps, a function of its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tlora_cli.families import Conditioning, LatentDistribution
from tlora_cli.families.text_rows import joined
from tlora_cli.formulas.objectives import Objective, TimestepSampler
from tlora_cli.foundation.devices import to_device

PHRASED_SHARE = 0.5
"""Share of the concept's samples whose caption gets a phrase."""


@dataclass(frozen=True)
class Phrased:
    """A caption with a phrase that no picture shows, for the concept and for its class.

    Attributes:
        caption: of the concept.
        own: its embeddings, one row; on the CPU.
        of_class: embeddings of the class's, one row; on the CPU.
    """

    caption: str
    own: Conditioning
    of_class: Conditioning


@dataclass(frozen=True)
class Example:
    """A training picture, encoded.

    Attributes:
        latent: its distribution under the VAE, (C, h, w).
        conditioning: text and size, one row.
        weight: (1, h, w), how much each place of the latent counts; None: all alike.
        caption: the text that `conditioning` was made of.
        class_text: embeddings of the caption with the class in place of the concept, one row; None
            if no answer to it is needed.
        phrases: the caption with phrases that no picture shows; empty: none.
    """

    latent: LatentDistribution
    conditioning: Conditioning
    weight: Tensor | None = None
    caption: str = ""
    class_text: Conditioning | None = None
    phrases: tuple[Phrased, ...] = ()


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
        phrase_conditioning: the same, with the phrases that the concept's captions have and no
            picture shows; None: no caption has one.
    """

    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    conditioning: Conditioning
    weight: Tensor | None
    instances: int
    class_conditioning: Conditioning | None = None
    phrase_conditioning: Conditioning | None = None


_NOISE, _ORDER, _DROPOUT, SCENES, _PHRASE = 0, 1, 2, 3, 4
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
    always: bool = False,
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
        encode: encodes the concept's captions anew, where a word is learned.
        dropout: of the concept's captions.
        always: give batches of captions without phrases the same parts as those with some, so that
            all are alike; they lead to the same losses.
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
    silent = dropout.places(seed, index, size) if dropout else []
    phrased = _choose_phrases(chosen[:size], seed, index, silent)
    for place, (example, phrase) in enumerate(zip(chosen, phrased, strict=False)):
        if dropout and place in silent:
            nothing = encode("") if encode else dropout.nothing
            texts[place] = {**texts[place], **nothing}
        elif encode:
            caption = phrase.caption if phrase else example.caption
            texts[place] = {**texts[place], **encode(caption)}
        elif phrase:
            texts[place] = {**texts[place], **_there(phrase.own, device)}
    classes = [
        {**example.conditioning, **example.class_text}
        for example in chosen[:size]
        if example.class_text
    ]
    with_phrases = None
    if any(phrased) or (always and any(example.phrases for example in examples)):
        with_phrases = joined(
            [
                {**row, **(_there(phrase.of_class, device) if phrase else {})}
                for row, phrase in zip(classes, phrased, strict=True)
            ]
        )
    return Batch(
        torch.stack(latents),
        noise,
        t,
        joined(texts),
        weight,
        size,
        joined(classes) if classes else None,
        with_phrases,
    )


def _choose_phrases(
    chosen: Sequence[Example], seed: int, index: int, silent: Sequence[int]
) -> list[Phrased | None]:
    """Return the phrase of each of a forward pass's concept samples; None: it has none."""
    if not any(example.phrases for example in chosen):
        return [None] * len(chosen)
    chances = torch.rand(len(chosen), 2, generator=generator_for(seed, _PHRASE, index)).tolist()
    return [
        example.phrases[int(which * len(example.phrases))]
        if example.phrases and taken < PHRASED_SHARE and place not in silent
        else None
        for place, (example, (taken, which)) in enumerate(zip(chosen, chances, strict=True))
    ]


def _there(text: Conditioning, device: torch.device) -> Conditioning:
    return {key: to_device(value, device) for key, value in text.items()}
