"""Sections of the recipe: base and concept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from tlora_cli.foundation.bundled import shipped
from tlora_cli.foundation.prompts import concept_words
from tlora_cli.photos.finding import AUTO
from tlora_cli.recipe.scenes import ScenesConfig
from tlora_cli.recipe.strict_section import (
    Problem,
    Section,
    check_files,
    check_prompt,
    check_prompts,
)


class BaseModelConfig(Section):
    """The pretrained model that is adapted."""

    model: str = Field(
        min_length=1,
        description="A Hugging Face Hub id, a diffusers folder, one .safetensors file, or the "
        f"built-in {next(iter(shipped().bases))}.",
    )
    revision: str | None = Field(None, description="Hub branch, tag or commit.")
    variant: str | None = Field(None, description="Weight variant of the repository, e.g. fp16.")
    config: str | None = Field(
        None,
        description="Local diffusers folder with the configuration and tokenizers that belong to a "
        "single .safetensors file.",
    )


_DEFAULT_CLASS_PROMPT = "a photo of {class}"


class PriorConfig(Section):
    """Prior preservation: pictures of the class keep the class from drifting (DreamBooth)."""

    images: str | None = Field(
        None,
        description="Folder of class pictures. What it lacks to `count`, the base model draws into "
        "the run folder.",
    )
    count: int = Field(100, ge=1, description="How many class pictures to use.")
    prompt: str = Field(_DEFAULT_CLASS_PROMPT, min_length=1, description="What the pictures show.")
    prompts: list[str] | None = Field(
        None,
        min_length=1,
        description="Several prompts in place of `prompt`, for pictures that the base draws: each "
        "is drawn equally often.",
    )
    weight: float = Field(
        1.0, gt=0, description="How much their loss counts against that of the concept."
    )

    _prompt_braces = field_validator("prompt")(check_prompt)
    _prompts_braces = field_validator("prompts")(check_prompts)

    def problems(self) -> Iterator[Problem]:
        """Yield prompts that are said twice, or that nothing would be drawn from."""
        if self.prompts and self.prompt != _DEFAULT_CLASS_PROMPT:
            yield Problem("both are given; keep one of them", ("prompts", "prompt"))
        if self.prompts and self.images:
            yield Problem(
                "your own class pictures have one prompt; use prompt, or drop images",
                ("prompts", "images"),
            )


_DEFAULT_PROMPT = "a photo of {placeholder} {class}"


class ConceptConfig(Section):
    """The concept: its picture(s) and the words for it."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    images: str | list[str] = Field(
        description="A picture, a folder of pictures, or a list of pictures; "
        f"{shipped().example_picture} is one of {shipped().title}. Relative paths start at the "
        "current folder."
    )
    masks: str | list[str] | None = Field(
        None,
        description="Subject mask(s): white where the subject is. The loss then counts only there. "
        "A picture, a folder with the same file names, or a list as long as `images`. auto: found "
        "by themselves, from a transparent background, by `mask_model`, or by GrabCut with the "
        "base's help; they are kept in the run folder, and what the subject touches of the latent "
        "counts fully.",
    )
    mask_model: str | None = Field(
        None,
        min_length=1,
        description="For `masks: auto`: Hub id or folder of a CLIPSeg model that finds the "
        "subject by its class, e.g. CIDAS/clipseg-rd64-refined. Default: GrabCut, which the base "
        "helps.",
    )
    placeholder: str = Field(
        "sks", min_length=1, description="Rare word that stands for the concept."
    )
    class_name: str = Field(
        alias="class", min_length=1, description="Class of the concept, e.g. dog."
    )
    prompt: str = Field(
        _DEFAULT_PROMPT,
        min_length=1,
        description="Training prompt; {placeholder} and {class} are filled in.",
    )
    prompts: list[str] | None = Field(
        None,
        min_length=1,
        description="Several training prompts in place of `prompt`; each picture gets them in "
        "turn.",
    )
    captions: bool = Field(
        False,
        description="Use the text beside a picture, photo.txt for photo.jpg, as its prompt. V* "
        "stands for the concept; a text without it gets the concept put before it.",
    )
    caption_dropout: float = Field(
        0.0, ge=0, lt=1, description="Share of the samples that are trained without their text."
    )
    phrases: Literal["auto"] | list[str] | None = Field(
        None,
        description="What prompts will ask for and no picture shows, e.g. [wearing a hat]: half of "
        "the captions end with one of them, and the loss expects what the base itself makes of it "
        "on the class. auto: a list that fits the class; null: none. Steps take a third longer.",
    )
    scenes: ScenesConfig | None = Field(
        None, description="Train on the subject in other places; null: on the photo as it is."
    )
    prior: PriorConfig | None = Field(None, description="Prior preservation; off by default.")

    @property
    def words(self) -> str:
        """The words that V* stands for, e.g. "sks dog"."""
        return concept_words(self.placeholder, self.class_name)

    _prompt_braces = field_validator("prompt")(check_prompt)
    _prompts_braces = field_validator("prompts")(check_prompts)

    @field_validator("images", "masks", mode="before")
    @classmethod
    def _are_files(cls, value: Any) -> Any:
        return value if value is None else check_files(value)

    def problems(self) -> Iterator[Problem]:
        """Yield a list of masks that doesn't match the pictures, and a model without use."""
        if self.mask_model is not None and self.masks != AUTO:
            yield Problem(f"belongs to masks: {AUTO}", ("mask_model", "masks"))
        if isinstance(self.images, list) and isinstance(self.masks, list):
            images, masks = len(self.images), len(self.masks)
            if images != masks:
                yield Problem(f"{masks} masks for {images} images", ("masks", "images"))
        if self.scenes and self.masks is None:
            yield Problem(
                "scenes need to know where the subject is: say masks: auto", ("masks", "scenes")
            )
        if self.prompts and self.prompt != _DEFAULT_PROMPT:
            yield Problem("both are given; keep one of them", ("prompts", "prompt"))
        if isinstance(self.phrases, list) and not all(map(str.strip, self.phrases)):
            yield Problem("holds an empty phrase; null means none", ("phrases",))
