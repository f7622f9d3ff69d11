"""S: the share of pictures that are alike and as asked at once, by similarities of encoders.

The counterpart, for real models, of what a bundle's judge counts. A picture is alike if its
likeness, the mean cosine with the concept's photographs, reaches a threshold; it is as asked if its
agreement, the cosine with its prompt, reaches another. Both thresholds are the user's numbers, or
what best separates real pairs from mismatched ones (`thresholds.separate`):

likeness   the concept's photographs with each other, against these with photographs of other
           things.
agreement  pictures with their own prompts, against the same pictures with the other prompts. The
           pictures are the base model's, without the adapter. Those of the adapter would cost
           nothing, but one that ignores prompts would then set itself a lower bar, and no two
           adapters would be measured alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from tlora_cli.evaluation.encoders import Encoder
from tlora_cli.evaluation.thresholds import Threshold, separate

Captioned = Sequence[tuple[Image.Image, str]]
"""Pictures, each with the text that it shows."""


@dataclass(frozen=True)
class Pairs:
    """All that the thresholds come from.

    Attributes:
        photographs: of the concept, all different; likeness is measured against them.
        others: photographs of other things.
        captioned: pictures that show what their texts say, for the agreement.
        likeness: the threshold, if the user gave it.
        agreement: the threshold, if the user gave it.
    """

    photographs: Sequence[Image.Image]
    others: Sequence[Image.Image] = ()
    captioned: Captioned = ()
    likeness: float | None = None
    agreement: float | None = None


@dataclass(frozen=True)
class Success:
    """Pictures with their likeness and agreement, and the thresholds of both.

    Attributes:
        alike: (N,) likeness of each picture.
        agreeing: (N,) agreement of each picture.
        likeness: threshold of the first.
        agreement: threshold of the second.
    """

    alike: Tensor
    agreeing: Tensor
    likeness: Threshold
    agreement: Threshold

    @property
    def measured(self) -> Tensor:
        """True for the pictures that have both numbers, (N,)."""
        return self.alike.isfinite() & self.agreeing.isfinite()

    @property
    def hits(self) -> tuple[Tensor, Tensor]:
        """True for the pictures that are alike, and for those that are as asked, (N,) each."""
        return self.alike >= self.likeness.value, self.agreeing >= self.agreement.value

    def shares(self) -> dict[str, float]:
        """Return S and its two parts, over the pictures that have both numbers; NaN of none."""
        known = self.measured
        alike, agreeing = (side[known] for side in self.hits)
        parts = {"S": alike & agreeing, "S (alike)": alike, "S (as asked)": agreeing}
        return {k: float(v.double().mean()) if len(v) else math.nan for k, v in parts.items()}


def measure(
    pictures: Sequence[Image.Image],
    agreeing: Tensor,
    likeness: Encoder,
    agreement: Encoder,
    pairs: Pairs,
) -> Success | None:
    """Measure pictures against thresholds from pairs.

    Args:
        pictures: to count, with the background painted over if the pairs' photographs have it so.
        agreeing: (N,) the cosine of each picture, as it was drawn, with its prompt.
        likeness: encoder for the likeness.
        agreement: encoder that `agreeing` is of.
        pairs: all that the thresholds come from.

    Returns:
        None if a threshold is neither given nor can be found: a side has no pairs.
    """
    photographs = likeness.pictures(pairs.photographs)
    alike = (likeness.pictures(pictures) @ photographs.T).mean(1)
    first = _given(pairs.likeness) or _likeness(photographs, likeness, pairs.others)
    second = _given(pairs.agreement) or _agreement(agreement, pairs.captioned)
    if first is None or second is None:
        return None
    return Success(alike, agreeing, first, second)


def _given(value: float | None) -> Threshold | None:
    return None if value is None else Threshold(value)


def _likeness(
    photographs: Tensor, encoder: Encoder, others: Sequence[Image.Image]
) -> Threshold | None:
    if not others:
        return None
    first, second = torch.triu_indices(len(photographs), len(photographs), 1)
    real = (photographs[first] * photographs[second]).sum(1)
    return separate(real, (photographs @ encoder.pictures(others).T).flatten())


def _agreement(encoder: Encoder, captioned: Captioned) -> Threshold | None:
    if not captioned:
        return None
    texts = [text for _, text in captioned]
    found = encoder.pictures([picture for picture, _ in captioned]) @ encoder.texts(texts).T
    same = torch.tensor([[one == other for other in texts] for one in texts])
    return separate(found.diagonal(), found[~same])


def choose(encoders: Mapping[str, Encoder]) -> tuple[str, str | None]:
    """Return the names of the encoders for likeness and for agreement.

    Likeness is best seen by an encoder that learned without texts: texts don't tell two things of a
    class apart (Ruiz et al. 2022, DreamBooth, section 4). None: no encoder reads text.
    """
    readers = [name for name, one in encoders.items() if one.reads_text]
    blind = [name for name in encoders if name not in readers]
    return (blind or readers)[0], readers[0] if readers else None
