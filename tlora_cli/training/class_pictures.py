"""Pictures of the class, for prior preservation: the user's own, and those that the base draws."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tlora_cli.families import Family
from tlora_cli.foundation.files import remove_leftovers
from tlora_cli.foundation.prompts import training_prompt
from tlora_cli.photos.finding import find_images
from tlora_cli.photos.framing import Frame
from tlora_cli.photos.training_images import load_training_image
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.sections import BaseModelConfig, ConceptConfig, PriorConfig
from tlora_cli.sampling.draw import Job, SamplingSettings, Texts, draw, save_picture
from tlora_cli.training.batch import Example
from tlora_cli.training.encoding import encode_lessons, to_device
from tlora_cli.training.from_recipe import sampling_settings
from tlora_cli.training.lessons import Lesson
from tlora_cli.training.shape import training_size


def class_prompts(prior: PriorConfig, concept: ConceptConfig) -> list[str]:
    """Return the prompts of class pictures."""
    words = concept.placeholder, concept.class_name
    prompts = [training_prompt(one, *words) for one in prior.prompts or [prior.prompt]]
    return list(dict.fromkeys(prompts))


def class_examples(
    recipe: Recipe,
    family: Family,
    pipeline: Any,
    texts: Texts,
    folder: Path,
    notify: Callable[[str], None],
) -> list[Example]:
    """Return the class pictures, encoded; missing ones are drawn by the base, before attaching.

    Args:
        recipe: of the run; has `concept.prior`.
        family: of the base.
        pipeline: of the base.
        texts: of the class prompts.
        folder: of the run, for class pictures.
        notify: shows a line.
    """
    prior, device = recipe.concept.prior, pipeline.vae.device
    assert prior is not None
    prompts, settings = class_prompts(prior, recipe.concept), sampling_settings(recipe)
    folder = folder / _key(prompts, recipe.base, settings)
    given = find_images(prior.images, "concept.prior.images") if prior.images else []
    missing = max(0, prior.count - len(given))
    remove_leftovers(folder)
    drawn = len(list(folder.glob("*.png")))
    jobs = [Job(prompts[n % len(prompts)], n) for n in range(drawn, missing)]
    if jobs:
        notify(f"drawing {len(jobs)} class pictures")
    for job, picture in draw(family, pipeline, None, texts, jobs, settings):
        save_picture(folder, job, picture, settings, {"purpose": "prior preservation"})
    own = sorted(folder.glob("*.png"))
    shown = [(path, prompts[0]) for path in given]
    shown += [(path, prompts[n % len(prompts)]) for n, path in enumerate(own)]
    lessons = (
        Lesson(load_training_image(path, None, Frame(*training_size(recipe))), prompt)
        for path, prompt in shown[: prior.count]
    )
    rows = {prompt: to_device(texts.prompts[prompt], device) for prompt in prompts}
    return encode_lessons(family, pipeline.vae, lessons, rows, device)


def _key(prompts: Sequence[str], base: BaseModelConfig, settings: SamplingSettings) -> str:
    """Return a name made of all that class pictures depend on, so none of others are taken."""
    of_prompts = prompts[0] if len(prompts) == 1 else list(prompts)
    origin = json.dumps([of_prompts, base.model_dump(), vars(settings)], sort_keys=True)
    return hashlib.sha256(origin.encode()).hexdigest()[:12]
