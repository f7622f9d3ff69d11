"""Draw what is asked with a built-in base, with or without an adapter, and judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base
from tlora_cli.foundation.prompts import sampling_prompt
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.load import load_adapter, load_words
from tlora_cli.recipe.defaults import published_settings
from tlora_cli.sampling.base_model import load_denoiser, load_text
from tlora_cli.sampling.draw import Job, SamplingSettings, draw, encode_texts
from tlora_cli.toyworld import reading, scores
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import Concept
from tlora_cli.toyworld.factors import SIZE, Scene
from tlora_cli.toyworld.renderer import draw as render
from tlora_cli.toyworld.suites import Task

BATCH = 32


@dataclass(frozen=True)
class Drawn:
    """A picture, what was asked, and what the judge reads on it."""

    task: Task
    picture: Image.Image
    reading: dict[str, str]


class Studio:
    """A built-in base, loaded once.

    Args:
        name: of the base.
        device: where to compute.

    Raises:
        UserError: if the base's files are damaged.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.family = FAMILIES[BUNDLE.bases[name]]
        self._texts = load_text(self.family, Base(name), device, torch.float32)
        self.pipeline = load_denoiser(self.family, Base(name), device, torch.float32, None, "auto")

    @property
    def settings(self) -> SamplingSettings:
        """The base's default settings."""
        sampling = published_settings(self.family.name, "tlora", self.name)["sampling"]
        return SamplingSettings(
            steps=sampling["steps"],
            guidance=sampling["guidance"],
            scheduler="default",
            negative_prompt="",
            width=SIZE,
            height=SIZE,
        )

    def draw(
        self,
        tasks: Sequence[Task],
        adapter: Adapter | None = None,
        concept: str | None = None,
        settings: SamplingSettings | None = None,
    ) -> list[Drawn]:
        """Draw every task and read the pictures.

        Args:
            tasks: what to draw.
            adapter: in force on this studio's pipeline, or None.
            concept: words for V*, e.g. "sks star".
            settings: default: the base's own.
        """
        settings = settings or self.settings
        prompts = [sampling_prompt(task.text, concept) for task in tasks]
        texts = encode_texts(self.family, self._texts, prompts, settings.negative_prompt)
        jobs = [Job(text, task.seed) for text, task in zip(prompts, tasks, strict=True)]
        drawn = draw(self.family, self.pipeline, adapter, texts, jobs, settings, BATCH)
        pictures = [picture for _, picture in drawn]
        readings = reading.read(pictures)
        return [Drawn(*one) for one in zip(tasks, pictures, readings, strict=True)]

    def draw_adapted(self, tasks: Sequence[Task], file: Path) -> list[Drawn]:
        """Draw every task with an adapter file, which is taken off again."""
        adapter = load_adapter(self.pipeline, file)
        words = load_words(self._texts, file)
        try:
            return self.draw(tasks, adapter, adapter.info.concept or None)
        finally:
            adapter.remove()
            for hook in words:
                hook.remove()


def prompted(drawn: Sequence[Drawn]) -> scores.Rate:
    """Return TS*."""
    return scores.rate([scores.prompted_right(one.reading, one.task.asked) for one in drawn])


def identity(drawn: Sequence[Drawn], concept: Concept) -> scores.Rate:
    """Return ID*."""
    return scores.rate([scores.identity_right(one.reading, concept.values) for one in drawn])


def details(drawn: Sequence[Drawn], concept: Concept) -> scores.Rate:
    """Return the share with the right details."""
    return scores.rate([scores.details_right(one.reading, concept.values) for one in drawn])


def success(drawn: Sequence[Drawn], concept: Concept) -> scores.Rate:
    """Return S*."""
    return scores.rate(
        [scores.wholly_right(one.reading, one.task.asked, concept.values) for one in drawn]
    )


def leak(drawn: Sequence[Drawn], training: Scene) -> scores.Rate:
    """Return leak."""
    return scores.rate(
        [scores.leaked(one.reading, one.task.asked, training.values) for one in drawn]
    )


def copies(drawn: Sequence[Drawn], training: Scene) -> scores.Rate:
    """Return copy: pictures nearer to the training picture than to the right drawing."""
    right = [render(training.changed(**one.task.asked)).image for one in drawn]
    of_drawn = reading.features([one.picture for one in drawn])
    to_right = (of_drawn * reading.features(right)).sum(1)
    to_training = of_drawn @ reading.features([render(training).image])[0]
    return scores.rate((to_training > to_right).tolist())
