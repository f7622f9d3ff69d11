"""Pictures -> metrics, for one picture and for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tlora_cli.evaluation import metrics
from tlora_cli.evaluation.encoders import Encoder

Mask = Callable[[Image.Image], Image.Image]
"""A picture -> the same with its background painted over."""


@dataclass(frozen=True)
class PromptedImage:
    """A picture with what it was asked to show.

    Attributes:
        group: base, suite, free or free_without.
        prompt: with V* for the concept; concept-free prompts have none.
        name: of its file.
        picture: itself.
    """

    group: str
    prompt: str
    name: str
    picture: Image.Image


@dataclass
class Scores:
    """The result.

    Attributes:
        summary: metric -> value over all pictures.
        rows: picture by picture.
        details: how a metric was measured, for results.json.
        notes: what some of the metrics are, in words.
        hint: what a metric that is not computed needs; empty if nothing.
    """

    summary: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, str | float]] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    hint: str = ""


def spellings(prompt: str, placeholder: str, class_name: str) -> dict[str, str]:
    """Return the prompt as a text encoder is given it, both ways; the paper does not say which.

    V* is the class ("a dog in the snow"), or the rare word alone ("a sks in the snow").
    """
    return {
        "class": prompt.replace("V*", class_name),
        "word": prompt.replace("V*", placeholder),
    }


def score(
    images: Sequence[PromptedImage],
    training: Sequence[Image.Image],
    encoders: Mapping[str, Encoder],
    placeholder: str,
    class_name: str,
    mask: Mask | None = None,
) -> Scores:
    """Score pictures with every encoder.

    Args:
        images: all pictures.
        training: the real pictures.
        encoders: name -> encoder.
        placeholder: the rare word.
        class_name: of the concept.
        mask: for image similarity on the base prompt, of real and drawn pictures.
    """
    result = Scores(rows=[{"group": o.group, "prompt": o.prompt, "file": o.name} for o in images])
    for name, encoder in encoders.items():
        features = encoder.pictures([one.picture for one in images])
        real = encoder.pictures(training)
        groups = {
            group: torch.tensor([n for n, one in enumerate(images) if one.group == group]).long()
            for group in ("base", "suite", "free", "free_without")
        }
        subject = real if mask is None else encoder.pictures([mask(one) for one in training])
        _likeness(result, name, images, features, subject, groups["base"], encoder, mask)
        _copying(result, name, images, features, real, groups["suite"])
        if len(free := groups["free"]) and len(without := groups["free_without"]):
            result.summary[f"{name} drift"] = metrics.drift(features[free], features[without])
        if encoder.reads_text and len(groups["suite"]):
            _text_metrics(result, name, images, features, groups, encoder, placeholder, class_name)
    return result


def _likeness(
    result: Scores,
    name: str,
    images: Sequence[PromptedImage],
    features: Tensor,
    real: Tensor,
    base: Tensor,
    encoder: Encoder,
    mask: Mask | None,
) -> None:
    """Add image similarity on the base prompt; `real` is masked like the pictures."""
    if not len(base):
        return
    shown = features[base]
    if mask is not None:
        shown = encoder.pictures([mask(images[int(n)].picture) for n in base])
    label = f"{name} IS (masked)" if mask else f"{name} IS"
    result.summary[label] = metrics.image_similarity(shown, real)
    for n, own in zip(base.tolist(), shown, strict=True):
        result.rows[n][label] = float((own @ real.T).mean())


def _copying(
    result: Scores,
    name: str,
    images: Sequence[PromptedImage],
    features: Tensor,
    real: Tensor,
    suite: Tensor,
) -> None:
    """Add copying of whole training pictures, and diversity, on the suite's prompts."""
    if not len(suite):
        return
    nearest, share = metrics.copying(features[suite], real)
    result.summary[f"{name} copying"] = nearest
    result.summary[f"{name} copied"] = share
    prompts = Counter(images[int(n)].prompt for n in suite)
    if min(prompts.values()) > 1:  # of one picture there is nothing to say
        result.summary[f"{name} diversity"] = _mean_diversity(images, features, suite, prompts)
    for n in suite.tolist():
        own = float((features[n] @ real.T).max())
        result.rows[n][f"{name} copying"] = own
        result.rows[n][f"{name} copied"] = float(own >= metrics.COPIED)


def _mean_diversity(
    images: Sequence[PromptedImage], features: Tensor, suite: Tensor, prompts: Mapping[str, int]
) -> float:
    """Return the mean over the prompts of the Vendi score of a prompt's pictures."""
    found = []
    for prompt in prompts:
        own = [int(n) for n in suite if images[int(n)].prompt == prompt]
        found.append(metrics.diversity(features[own]))
    return sum(found) / len(found)


def _text_metrics(
    result: Scores,
    name: str,
    images: Sequence[PromptedImage],
    features: Tensor,
    groups: Mapping[str, Tensor],
    encoder: Encoder,
    placeholder: str,
    class_name: str,
) -> None:
    suite = groups["suite"].tolist()
    for way in ("class", "word"):
        said = [spellings(images[n].prompt, placeholder, class_name)[way] for n in suite]
        texts = encoder.texts(said)
        label = f"{name} TS ({way})"
        result.summary[label] = metrics.text_similarity(features[suite], texts)
        for n, text in zip(suite, texts, strict=True):
            result.rows[n][label] = float(features[n] @ text)
