"""A recipe -> what the loop needs: encoders run once and are freed, then the denoiser."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tlora_cli.families import FAMILIES, Conditioning, Family
from tlora_cli.foundation.devices import DTYPES, choose_device, release_memory, restart_peak
from tlora_cli.foundation.files import remove_leftovers
from tlora_cli.foundation.prompts import training_prompt
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.attach import attach
from tlora_cli.injection.words import ENCODERS
from tlora_cli.methods import METHODS
from tlora_cli.photos.finding import find_images
from tlora_cli.photos.training_images import TrainingImage, latent_mask, load_training_images
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.sections import BaseModelConfig, PriorConfig
from tlora_cli.sampling.base_model import choose_attention, load_denoiser, load_text
from tlora_cli.sampling.draw import Job, SamplingSettings, Texts, draw, encode_texts, save_picture
from tlora_cli.training.batch import Example
from tlora_cli.training.found_masks import load_concept
from tlora_cli.training.from_recipe import (
    adapter_info,
    base_of,
    drawn_prompts,
    sampling_settings,
)
from tlora_cli.training.kept_images import SmallPicture, small_pictures
from tlora_cli.training.ranks import rank_schedule
from tlora_cli.training.run_folder import RunFolder

Notify = Callable[[str], None]
"""Shows the user a line."""


@dataclass(frozen=True)
class Models:
    """The base model and the adapter on it.

    Attributes:
        family: of the base.
        pipeline: denoiser, scheduler and, if pictures are drawn while training, the VAE.
        adapter: what is trained.
        device: where they are.
        dtype: of the denoiser.
    """

    family: Family
    pipeline: Any
    adapter: Adapter
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True)
class TrainingData:
    """The pictures that are learned from, encoded.

    Attributes:
        concept: its pictures.
        prior: pictures of the class, if the class is to be kept.
        digest: of the concept's pictures and masks, to tell if they changed before a resume.
        pictures: small copies of them.
        encode_prompt: encodes the training prompt anew, for methods that learn a word; else None.
    """

    concept: list[Example]
    prior: list[Example]
    digest: str
    pictures: list[SmallPicture]
    encode_prompt: Callable[[], Conditioning] | None

    def present(self) -> list[Example]:
        """Return the concept's pictures with the prompt as the encoders understand it now."""
        if self.encode_prompt is None:
            return self.concept
        text = self.encode_prompt()
        return [replace(one, conditioning={**one.conditioning, **text}) for one in self.concept]


@dataclass(frozen=True)
class Prepared:
    """All that the loop works on.

    Attributes:
        models: base and adapter.
        data: pictures and prompts.
        texts: returns the embeddings of all prompts that are drawn while training; None if none
            are.
    """

    models: Models
    data: TrainingData
    texts: Callable[[], Texts] | None


@dataclass(frozen=True)
class _Encoded:
    """Texts as the text encoders made them, before these are freed.

    Attributes:
        prompt: the training prompt.
        class_prompt: the prompt of class pictures, and its text; None without prior preservation.
        drawn: of `Prepared.texts`.
        encode_prompt: of `TrainingData`.
        encoders: the pipeline, for methods that learn a word; else None.
    """

    prompt: Conditioning
    class_prompt: Texts | None
    drawn: Callable[[], Texts] | None
    encode_prompt: Callable[[], Conditioning] | None
    encoders: Any


def prepare(recipe: Recipe, run: RunFolder, notify: Notify) -> Prepared:
    """Load pictures and models, encode once, free the encoders, attach the adapter.

    Args:
        recipe: of the run.
        run: its folder, for what is made before the first step: class pictures, masks.
        notify: tells what is being loaded.
    """
    family, train = FAMILIES[recipe.family], recipe.train
    device = choose_device(train.device, train.precision, train.quantization)
    dtype = DTYPES[train.precision]
    images = load_concept(recipe.concept, train.resolution, run, notify)

    base = base_of(recipe)
    notify(f"loading text encoders of {base.model}")
    encoded = _encode_prompts(recipe, family, load_text(family, base, device, dtype))

    notify(f"loading denoiser and VAE of {base.model}")
    pipeline = load_denoiser(family, base, device, dtype, train.quantization, train.objective)
    choose_attention(getattr(pipeline, family.denoiser), train.attention)
    concept = _encode_images(family, pipeline.vae, images, encoded.prompt, device)
    prior: list[Example] = []
    if recipe.concept.prior and encoded.class_prompt:
        text, settings = encoded.class_prompt, sampling_settings(recipe)
        folder = run.class_pictures / _class_key(text, recipe.base, settings)
        paths = _class_pictures(
            recipe.concept.prior, folder, family, pipeline, text, settings, notify
        )
        pictures = load_training_images(paths, None, train.resolution)
        [(_, class_row)] = text.prompts.items()
        prior = _encode_images(family, pipeline.vae, pictures, class_row, device)
    if encoded.drawn is None:
        pipeline.vae = None
    adapter = _attach(recipe, pipeline, encoded.encoders)
    release_memory()  # once, before the loop: return the encoders'
    restart_peak(device)
    return Prepared(
        Models(family, pipeline, adapter, device, dtype),
        TrainingData(
            concept, prior, _digest(images), small_pictures(images), encoded.encode_prompt
        ),
        encoded.drawn,
    )


def _attach(recipe: Recipe, pipeline: Any, encoders: Any) -> Adapter:
    own, train = recipe.adapter, recipe.train
    adapter = attach(
        pipeline,
        own.method,
        own.rank,
        schedule=rank_schedule(own, train.seed),
        init=own.init,
        init_std=own.init_std,
        blocks=own.blocks,
        seed=train.seed,
        targets=own.targets,
        info=adapter_info(recipe),
        text=encoders,
    )
    if train.gradient_checkpointing:
        adapter.enable_gradient_checkpointing()
    return adapter


def _encode_prompts(recipe: Recipe, family: Family, pipeline: Any) -> _Encoded:
    """Encode all prompts of a run."""
    concept = recipe.concept
    words = concept.placeholder, concept.class_name
    prompt = training_prompt(concept.prompt, *words)
    with torch.no_grad():
        text = family.encode_prompts(pipeline, [prompt])
    encode_prompt, encoders = None, None
    if METHODS[recipe.adapter.method].word:  # the encoders stay: their answers change at each step
        encoders = pipeline
        for name in ENCODERS:
            getattr(pipeline, name).requires_grad_(False)
        encode_prompt = functools.partial(family.encode_prompts, pipeline, [prompt])
    drawn: Callable[[], Texts] | None = None
    if prompts := drawn_prompts(recipe):
        negative = recipe.sampling.negative_prompt
        drawn = functools.partial(encode_texts, family, pipeline, prompts, negative)
        if encoders is None:
            drawn = _constant(drawn())
    class_prompt = None
    if concept.prior:
        class_words = training_prompt(concept.prior.prompt, *words)
        class_prompt = encode_texts(family, pipeline, [class_words], "")
    return _Encoded(text, class_prompt, drawn, encode_prompt, encoders)


def _constant(texts: Texts) -> Callable[[], Texts]:
    return lambda: texts


def _encode_images(
    family: Family,
    vae: Any,
    images: list[TrainingImage],
    text: Conditioning,
    device: torch.device,
) -> list[Example]:
    examples = []
    for image in images:
        latent = family.encode_image(vae, image.pixels)
        size = family.image_conditioning(image.crop, image.pixels.shape[-1])
        conditioning = {key: value.to(device) for key, value in {**text, **size}.items()}
        weight = None
        if image.mask is not None:
            size_of = latent.mean.shape[-2:]
            weight = latent_mask(image.mask, *size_of, touched=image.touched).to(device)
        examples.append(Example(latent, conditioning, weight))
    return examples


def _class_key(text: Texts, base: BaseModelConfig, settings: SamplingSettings) -> str:
    """Return a name made of all that class pictures depend on, so none of others are taken."""
    [prompt] = text.prompts
    origin = json.dumps([prompt, base.model_dump(), vars(settings)], sort_keys=True)
    return hashlib.sha256(origin.encode()).hexdigest()[:12]


def _class_pictures(
    prior: PriorConfig,
    folder: Path,
    family: Family,
    pipeline: Any,
    text: Texts,
    settings: SamplingSettings,
    notify: Notify,
) -> list[str]:
    """Return the class pictures; missing ones are drawn by the base model, before attaching."""
    given = find_images(prior.images, "concept.prior.images") if prior.images else []
    missing = max(0, prior.count - len(given))
    [prompt] = text.prompts
    remove_leftovers(folder)
    drawn = len(list(folder.glob("*.png")))
    jobs = [Job(prompt, seed) for seed in range(drawn, missing)]
    if jobs:
        notify(f"drawing {len(jobs)} class pictures")
    for job, picture in draw(family, pipeline, None, text, jobs, settings):
        save_picture(folder, job, picture, settings, {"purpose": "prior preservation"})
    chosen = given + sorted(folder.glob("*.png"))
    return [str(path) for path in chosen[: prior.count]]


def _digest(images: list[TrainingImage]) -> str:
    """Return a digest of what the pictures and masks hold after cropping."""
    digest = hashlib.sha256()
    for image in images:
        for tensor in (image.pixels, image.mask):
            digest.update(b"none" if tensor is None else tensor.numpy().tobytes())
    return digest.hexdigest()
