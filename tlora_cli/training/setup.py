"""A recipe -> what the loop needs: encoders run once and are freed, then the denoiser."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from tlora_cli.families import FAMILIES, Conditioning, Family
from tlora_cli.families.loading import Base
from tlora_cli.formats import AdapterInfo
from tlora_cli.foundation.devices import DTYPES, choose_device
from tlora_cli.foundation.files import remove_leftovers
from tlora_cli.foundation.prompts import sampling_prompt, training_prompt
from tlora_cli.foundation.training_images import (
    TrainingImage,
    find_images,
    latent_mask,
    load_training_images,
)
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.attach import attach
from tlora_cli.injection.words import ENCODERS
from tlora_cli.methods import METHODS
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.base_model import choose_attention, load_denoiser, load_text
from tlora_cli.sampling.draw import Job, SamplingSettings, Texts, draw, encode_texts, save_picture
from tlora_cli.training.kept_images import SmallPicture, small_pictures
from tlora_cli.training.ranks import rank_schedule
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.scoring_prompts import trial_of
from tlora_cli.training.step import Example

Say = Callable[[str], None]


@dataclass(frozen=True)
class Prepared:
    """All that the loop works on."""

    family: Family
    pipeline: Any
    """Denoiser, scheduler and, if pictures are drawn while training, the VAE."""
    adapter: Adapter
    examples: list[Example]
    prior: list[Example]
    texts: Callable[[], Texts] | None
    """Embeddings of all prompts that are drawn while training; None if none are."""
    told: Callable[[], Conditioning] | None
    """Encodes the training prompt anew, for methods that learn a word; else None."""
    inputs: str
    """Digest of the pictures and masks, to tell if they changed between sittings."""
    device: torch.device
    dtype: torch.dtype
    pictures: list[SmallPicture]
    """Small copies of the pictures."""

    def present_examples(self) -> list[Example]:
        """Return the pictures with the prompt as the encoders tell it now."""
        if self.told is None:
            return self.examples
        text = self.told()
        return [replace(one, conditioning={**one.conditioning, **text}) for one in self.examples]


def sampling_settings(recipe: Recipe) -> SamplingSettings:
    """Return the recipe's sampling settings with the size filled in."""
    own = recipe.sampling.model_dump()
    own["width"] = own["width"] or recipe.train.resolution
    own["height"] = own["height"] or recipe.train.resolution
    return SamplingSettings(**own)


def concept_of(recipe: Recipe) -> str:
    """Return what V* stands for, e.g. "sks dog"."""
    return recipe.concept.words


def adapter_info(recipe: Recipe) -> AdapterInfo:
    """Return what the adapter file will say of its origin."""
    base = base_of(recipe).absolute()
    return AdapterInfo(
        base_model=base.model,
        base_revision=base.revision,
        base_variant=base.variant,
        base_config=base.config,
        placeholder=recipe.concept.placeholder,
        class_name=recipe.concept.class_name,
        precision=recipe.train.precision,
        objective=recipe.train.objective,
        attention=recipe.train.attention,
        quantization=recipe.train.quantization,
        sampling=vars(sampling_settings(recipe)),
        recipe=recipe.model_dump(mode="json", by_alias=True),
    )


def base_of(recipe: Recipe) -> Base:
    """Return where the recipe's base model is."""
    return Base(**recipe.base.model_dump())


def prepare(recipe: Recipe, run: RunFolder, say: Say) -> Prepared:
    """Load pictures and models, encode once, free the encoders, attach the adapter."""
    family, train = FAMILIES[recipe.family], recipe.train
    device = choose_device(train.device, train.precision, train.quantization)
    dtype = DTYPES[train.precision]
    images = load_training_images(recipe.concept.images, recipe.concept.masks, train.resolution)

    base = base_of(recipe)
    say(f"loading text encoders of {base.model}")
    pipeline = load_text(family, base, device, dtype)
    words = recipe.concept.placeholder, recipe.concept.class_name
    prompt = training_prompt(recipe.concept.prompt, *words)
    with torch.no_grad():
        text = family.encode_prompts(pipeline, [prompt])
    told, texts, encoders = None, None, None
    if METHODS[recipe.adapter.method].word:  # the encoders stay: their answers change at each step
        encoders = pipeline
        for name in ENCODERS:
            getattr(pipeline, name).requires_grad_(False)
        told = functools.partial(family.encode_prompts, pipeline, [prompt])
    if prompts := drawn_prompts(recipe):
        texts = _drawn_texts(recipe, family, pipeline, prompts, told is not None)
    class_text = None
    if recipe.concept.prior:
        class_prompt = training_prompt(recipe.concept.prior.prompt, *words)
        class_text = encode_texts(family, pipeline, [class_prompt], "")
    del pipeline

    say(f"loading denoiser and VAE of {base.model}")
    pipeline = load_denoiser(family, base, device, dtype, train.quantization, train.objective)
    choose_attention(getattr(pipeline, family.denoiser), train.attention)
    examples = _encode(family, pipeline.vae, images, text, device)
    prior: list[Example] = []
    if recipe.concept.prior and class_text:
        pictures = _class_pictures(recipe, run, family, pipeline, class_text, say)
        [(_, class_row)] = class_text.prompts.items()
        prior = _encode(family, pipeline.vae, pictures, class_row, device)
    if not prompts:
        pipeline.vae = None
    adapter = attach(
        pipeline,
        recipe.adapter.method,
        recipe.adapter.rank,
        schedule=rank_schedule(recipe),
        init=recipe.adapter.init,
        init_std=recipe.adapter.init_std,
        blocks=recipe.adapter.blocks,
        seed=train.seed,
        targets=recipe.adapter.targets,
        info=adapter_info(recipe),
        text=encoders,
    )
    if train.gradient_checkpointing:
        adapter.enable_gradient_checkpointing()
    if device.type == "cuda":
        torch.cuda.empty_cache()  # once, before the loop: return the encoders' memory
        torch.cuda.reset_peak_memory_stats()
    return Prepared(
        family,
        pipeline,
        adapter,
        examples,
        prior,
        texts,
        told,
        _digest(images),
        device,
        dtype,
        small_pictures(images),
    )


def _drawn_texts(
    recipe: Recipe, family: Family, pipeline: Any, prompts: list[str], anew: bool
) -> Callable[[], Texts]:
    """Return what gives the prompts' embeddings: encoded once, or `anew` each time."""
    encode = functools.partial(
        encode_texts, family, pipeline, prompts, recipe.sampling.negative_prompt
    )
    if anew:
        return encode
    texts = encode()
    return lambda: texts


def drawn_prompts(recipe: Recipe) -> list[str]:
    """Return all prompts that are drawn while training, with the concept or its class filled in."""
    prompts = preview_prompts(recipe)
    if recipe.train.select == "auto":
        tried = [prompt for prompt, _ in trial_of(recipe).pictures]
        prompts += [
            sampling_prompt(prompt, words)
            for words in (concept_of(recipe), recipe.concept.class_name)
            for prompt in tried
        ]
    return list(dict.fromkeys(prompts))


def preview_prompts(recipe: Recipe) -> list[str]:
    """Return the preview prompts with the concept filled in; none without previews."""
    if recipe.train.preview is None:
        return []
    return [sampling_prompt(p, concept_of(recipe)) for p in recipe.train.preview.prompts]


def _encode(
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
            weight = latent_mask(image.mask, *latent.mean.shape[-2:]).to(device)
        examples.append(Example(latent, conditioning, weight))
    return examples


def _class_pictures(
    recipe: Recipe, run: RunFolder, family: Family, pipeline: Any, text: Texts, say: Say
) -> list[TrainingImage]:
    """Return the class pictures; missing ones are drawn by the base model, before attaching."""
    prior = recipe.concept.prior
    assert prior is not None
    given = find_images(prior.images, "concept.prior.images") if prior.images else []
    missing = max(0, prior.count - len(given))
    [prompt] = text.prompts
    settings = sampling_settings(recipe)
    # The folder is named by all that the pictures depend on, so none of another prompt is taken.
    origin = json.dumps([prompt, recipe.base.model_dump(), vars(settings)], sort_keys=True)
    folder = run.class_pictures / hashlib.sha256(origin.encode()).hexdigest()[:12]
    remove_leftovers(folder)
    drawn = len(list(folder.glob("*.png")))
    jobs = [Job(prompt, seed) for seed in range(drawn, missing)]
    if jobs:
        say(f"drawing {len(jobs)} class pictures")
    for job, picture in draw(family, pipeline, None, text, jobs, settings):
        save_picture(folder, job, picture, settings, {"purpose": "prior preservation"})
    chosen = given + sorted(folder.glob("*.png"))
    paths = [str(path) for path in chosen[: prior.count]]
    return load_training_images(paths, None, recipe.train.resolution)


def _digest(images: list[TrainingImage]) -> str:
    """Return a digest of what the pictures and masks hold after cropping."""
    digest = hashlib.sha256()
    for image in images:
        for tensor in (image.pixels, image.mask):
            digest.update(b"none" if tensor is None else tensor.numpy().tobytes())
    return digest.hexdigest()
