"""The scenes of a run, from its photos and its recipe to lessons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tlora_cli.families import Family
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pictures import read_picture
from tlora_cli.photos.framing import Frame
from tlora_cli.photos.training_images import TrainingImage
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.draw import SamplingSettings, Texts
from tlora_cli.training.lessons import Lesson, captions_of
from tlora_cli.training.scenes.composition import compose, counting
from tlora_cli.training.scenes.drawn import DrawnPlaces
from tlora_cli.training.scenes.folder import KEY, places_in
from tlora_cli.training.scenes.lists import list_of
from tlora_cli.training.scenes.placement import Scene, box_of, middle_of, plan_scenes
from tlora_cli.training.scenes.words import scene_caption
from tlora_cli.training.shape import training_size


@dataclass(frozen=True)
class _Places:
    """The pictures of places: words of each, and where the pixels come from."""

    words: list[str]
    pixels: Callable[[int], Tensor]
    drawn: DrawnPlaces | None


class Scenes:
    """The scenes of a run.

    Args:
        recipe: of the run; has `concept.scenes`.
        images: the photos, with masks.
        settings: of drawing places.
        folder: of the run, for places.
        notify: shows a line.

    Attributes:
        captions: of the scenes, in their order.

    Raises:
        UserError: if a photo has no mask, or the places can't be had.
    """

    def __init__(
        self,
        recipe: Recipe,
        images: Sequence[TrainingImage],
        settings: SamplingSettings,
        folder: Path,
        notify: Callable[[str], None],
    ) -> None:
        config = recipe.concept.scenes
        assert config is not None
        self._images, self._whole = images, config.loss == "whole"
        self._places = _places(recipe, settings, folder, notify)
        masks = [_mask_of(image) for image in images]
        self._boxes = [box_of(mask) for mask in masks]
        self._untouched = [
            replace(image, mask=self._counted(mask), touched=True)
            for image, mask in zip(images, masks, strict=True)
        ]
        sizes = [image.size for image in images]
        self._plan = plan_scenes(
            self._boxes, sizes, len(self._places.words), config, recipe.train.seed
        )
        self.captions = list(self._captions(recipe))

    def _captions(self, recipe: Recipe) -> Iterator[str]:
        known = [captions_of(image.path, recipe.concept) for image in self._images]
        turns = [0] * len(known)
        for scene in self._plan:
            own = known[scene.image]
            prompt = own[turns[scene.image] % len(own)]
            turns[scene.image] += 1
            if scene.place is None or scene.placement is None:
                yield prompt
            else:
                middle = middle_of(scene.placement, self._images[scene.image].size[0])
                yield scene_caption(prompt, self._places.words[scene.place], middle)

    @property
    def prompts(self) -> list[str]:
        """The prompts that the base has to draw first."""
        drawn = self._places.drawn
        return list(dict.fromkeys(job.prompt for job in drawn.missing)) if drawn else []

    def draw_places(self, family: Family, pipeline: Any, texts: Texts | None) -> None:
        """Draw the places that are missing, before an adapter is on the base.

        Args:
            family: of the base.
            pipeline: of the base.
            texts: of `prompts`; None if there are none.
        """
        if self._places.drawn:
            self._places.drawn.draw(family, pipeline, texts)

    def lessons(self) -> Iterator[Lesson]:
        """Yield the scenes one by one, so that not all of them are in memory."""
        for scene, caption in zip(self._plan, self.captions, strict=True):
            yield Lesson(self._composed(scene), caption)

    def _composed(self, scene: Scene) -> TrainingImage:
        image, box = self._images[scene.image], self._boxes[scene.image]
        if scene.place is None or scene.placement is None:
            return self._untouched[scene.image]
        mask = _mask_of(image)
        place = self._places.pixels(scene.place)
        pixels, mask = compose(image.pixels, mask, box, place, scene.placement)
        return replace(image, pixels=pixels, mask=self._counted(mask), touched=True)

    def _counted(self, mask: Tensor) -> Tensor | None:
        """Return what counts in the loss where the subject's mask is this one; None: all of it."""
        return None if self._whole else counting(mask)


def _places(
    recipe: Recipe, settings: SamplingSettings, folder: Path, notify: Callable[[str], None]
) -> _Places:
    config, concept = recipe.concept.scenes, recipe.concept
    assert config is not None
    chosen = list_of(config.places, concept.class_name, recipe.base.model)
    if chosen is None:
        own = places_in(config.places, Frame(*training_size(recipe)))
        return _Places([words for words, _ in own], lambda number: own[number][1], None)
    drawn = DrawnPlaces(recipe, [prompt for _, prompt in chosen], settings, folder, notify)
    words = [words for words, _ in chosen for _ in range(config.each)]
    return _Places(words, lambda number: _read(drawn.files[number]), drawn)


def _read(file: Path) -> Tensor:
    picture = np.array(read_picture(file, KEY, "RGB"))
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 127.5 - 1


def _mask_of(image: TrainingImage) -> Tensor:
    if image.mask is None:
        raise UserError(
            "scenes need to know where the subject is",
            where="concept.masks",
            do="give masks, or say masks: auto",
        )
    return image.mask
