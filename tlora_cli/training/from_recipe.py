"""A recipe -> the values that parts of a run work with, so that these need no recipe."""

from __future__ import annotations

from tlora_cli.families.loading import Base
from tlora_cli.formats import AdapterInfo
from tlora_cli.foundation.bundled import bundle_of_base, version_of
from tlora_cli.foundation.prompts import sampling_prompt
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.draw import SamplingSettings
from tlora_cli.training.scoring_prompts import trial_for
from tlora_cli.training.shape import training_size


def base_of(recipe: Recipe) -> Base:
    """Return where the recipe's base model is."""
    return Base(**recipe.base.model_dump())


def sampling_settings(recipe: Recipe) -> SamplingSettings:
    """Return the recipe's sampling settings with the size filled in."""
    own = recipe.sampling.model_dump()
    width, height = training_size(recipe)
    own["width"] = own["width"] or width
    own["height"] = own["height"] or height
    return SamplingSettings(**own)


def adapter_info(recipe: Recipe) -> AdapterInfo:
    """Return what the adapter file will say of its origin."""
    base = base_of(recipe).absolute()
    return AdapterInfo(
        base_model=base.model,
        base_revision=base.revision,
        base_variant=base.variant,
        base_config=base.config,
        base_version=version_of(base.model),
        placeholder=recipe.concept.placeholder,
        class_name=recipe.concept.class_name,
        precision=recipe.train.precision,
        objective=recipe.train.objective,
        attention=recipe.train.attention,
        quantization=recipe.train.quantization,
        sampling=vars(sampling_settings(recipe)),
        recipe=recipe.model_dump(mode="json", by_alias=True),
    )


def preview_prompts(recipe: Recipe) -> list[str]:
    """Return the preview prompts with the concept filled in; none without previews."""
    if recipe.train.preview is None:
        return []
    concept = recipe.concept
    words = concept.words, concept.placeholder, concept.class_name
    return [sampling_prompt(p, *words) for p in recipe.train.preview.prompts]


def drawn_prompts(recipe: Recipe) -> list[str]:
    """Return all prompts that are drawn while training, with the concept or its class filled in."""
    prompts = preview_prompts(recipe)
    if recipe.train.select == "auto":
        trial = trial_for(recipe.concept.class_name, bundle_of_base(recipe.base.model))
        prompts += [
            sampling_prompt(prompt, words)
            for words in (recipe.concept.words, recipe.concept.class_name)
            for prompt, _ in trial.pictures
        ]
    return list(dict.fromkeys(prompts))
