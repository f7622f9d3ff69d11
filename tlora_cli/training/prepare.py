"""A recipe -> what the loop needs: encoders run once and are freed, then the denoiser."""

from __future__ import annotations

import functools
import hashlib
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image

from tlora_cli.families import FAMILIES, Family
from tlora_cli.foundation.devices import DTYPES, choose_device, release_memory, restart_peak
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.attach import attach
from tlora_cli.photos.training_images import TrainingImage
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.base_model import choose_attention, load_denoiser, load_text
from tlora_cli.sampling.draw import Texts
from tlora_cli.sampling.known_world import another_base, strangers
from tlora_cli.training.batch import Dropout, Encode, Example
from tlora_cli.training.class_pictures import class_examples, class_prompts
from tlora_cli.training.encoding import asks_the_class, encode_all, encode_lessons
from tlora_cli.training.found_masks import Notify, load_concept
from tlora_cli.training.from_recipe import adapter_info, base_of, sampling_settings
from tlora_cli.training.kept_images import SmallPicture, small_pictures, square_sheet
from tlora_cli.training.lessons import Lesson, Photos, class_caption
from tlora_cli.training.ranks import rank_schedule
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.scenes.lessons import Scenes
from tlora_cli.training.watched_lessons import WatchedLessons, content_of


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
        encode: encodes a caption of the concept anew, where a word is learned; else None.
        dropout: of captions, if they are left out at times.
        sheet: of the scenes, if there are any.
    """

    concept: list[Example]
    prior: list[Example]
    digest: str
    pictures: list[SmallPicture]
    encode: Encode | None = None
    dropout: Dropout | None = None
    sheet: Image.Image | None = None


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


SHEET_SIDE = 128
"""Side of a scene on the sheet in pixels."""


def prepare(recipe: Recipe, folder: RunFolder, notify: Notify) -> Prepared:
    """Load pictures and models, encode once, free the encoders, attach the adapter.

    Args:
        recipe: of the run.
        folder: of the run, for what is made before the first step: masks, places, class pictures.
        notify: tells what is being loaded.
    """
    family, train, concept = FAMILIES[recipe.family], recipe.train, recipe.concept
    device = choose_device(train.device, train.precision, train.quantization, offload=train.offload)
    dtype = DTYPES[train.precision]
    images = load_concept(recipe, folder, device, notify)
    for told in strangers(recipe.base.model, [image.path for image in images]):
        warnings.warn(f"{told}; {another_base('base')}", stacklevel=2)
    settings = sampling_settings(recipe)
    source: Scenes | Photos = Photos(images, concept)
    if concept.scenes:
        source = Scenes(recipe, images, settings, folder.places, notify)
    class_words = class_prompts(concept.prior, concept) if concept.prior else []

    base = base_of(recipe)
    notify(f"loading text encoders of {base.model}")
    encoders = load_text(family, base, device, dtype, offloaded=train.offload)
    for told in family.training_notes(encoders.config, base.model):
        warnings.warn(f"{base.model} {told}", stacklevel=2)
    by_base = [*source.prompts, *class_words]
    begins = not folder.holds_run()
    encoded = encode_all(recipe, family, encoders, source.captions, by_base, device, begins=begins)
    del encoders

    notify(f"loading denoiser and VAE of {base.model}")
    pipeline = load_denoiser(
        family,
        base,
        device,
        dtype,
        train.quantization,
        train.objective,
        offloaded=train.offload,
    )
    choose_attention(getattr(pipeline, family.denoiser), train.attention)
    source.draw_places(family, pipeline, encoded.by_base)
    digest, watched = _digest(images), None
    lessons: Iterable[Lesson] = source.lessons()
    if concept.scenes or concept.captions:  # the pictures alone don't say what is learned
        watched = WatchedLessons(digest)
        lessons = watched.passing(lessons)
    examples = encode_lessons(
        family,
        pipeline.vae,
        lessons,
        encoded.captions,
        device,
        functools.partial(class_caption, concept=concept) if asks_the_class(recipe) else None,
        encoded.phrases,
    )
    prior: list[Example] = []
    if concept.prior and encoded.by_base:
        prior = class_examples(
            recipe, family, pipeline, encoded.by_base, folder.class_pictures, notify
        )
    if encoded.drawn is None:
        pipeline.vae = None
    adapter = _attach(recipe, pipeline, encoded.encoders)
    release_memory()  # once, before the loop: return the encoders'
    restart_peak(device)
    data = TrainingData(
        examples,
        prior,
        watched.digest if watched else digest,
        small_pictures(images),
        encoded.encode,
        Dropout(concept.caption_dropout, encoded.captions[""]) if concept.caption_dropout else None,
        square_sheet(watched.small, SHEET_SIDE) if watched and concept.scenes else None,
    )
    return Prepared(Models(family, pipeline, adapter, device, dtype), data, encoded.drawn)


def _attach(recipe: Recipe, pipeline: Any, encoders: Any) -> Adapter:
    own, train = recipe.adapter, recipe.train
    family, scheduler = FAMILIES[recipe.family], dict(pipeline.scheduler.config)
    adapter = attach(
        pipeline,
        own.method,
        own.rank,
        schedule=rank_schedule(own, train.seed, family, scheduler),
        init=own.init,
        init_std=own.init_std,
        blocks=own.blocks,
        seed=train.seed,
        targets=own.targets,
        info=adapter_info(recipe),
        text=encoders,
        word_rate=train.word_lr and train.word_lr / train.optimizer.lr,
    )
    if train.gradient_checkpointing:
        adapter.enable_gradient_checkpointing()
    return adapter


def _digest(images: list[TrainingImage]) -> str:
    """Return a digest of what the pictures and masks hold after cropping."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(content_of(image))
    return digest.hexdigest()
