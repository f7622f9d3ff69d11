"""The recipe: everything a run depends on, as typed and documented models.

A recipe is a YAML file (`reading` reads it). Every field has a description, which is also the
text of the JSON schema. Unknown keys are errors, and values must have their type: the text "64" is
no number. Models are frozen: what was validated is what runs. This module imports neither torch nor
diffusers, so a mistake is reported at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter
from typing import Any, Literal

from pydantic import Field, model_validator

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.reach import LINEAR, REACHES, WIDEST
from tlora_cli.foundation.gpu_only import GPU_ONLY, needs_gpu
from tlora_cli.foundation.number_formats import FileFormat
from tlora_cli.foundation.packages import PRODUCT
from tlora_cli.methods import METHODS
from tlora_cli.photos.framing import SUBJECT
from tlora_cli.recipe.adapter_sections import AdapterConfig
from tlora_cli.recipe.defaults import chosen_method, memory_preset, merged
from tlora_cli.recipe.named import NAMED, PAPER, recipe_settings
from tlora_cli.recipe.running import execution_problems, offload_problems, word_problems
from tlora_cli.recipe.sections import BaseModelConfig, ConceptConfig
from tlora_cli.recipe.strict_section import (
    FamilyName,
    Problem,
    RecipeName,
    SamplerName,
    Section,
)
from tlora_cli.recipe.train_sections import TrainConfig

AS_TRAINED = "Pixels; null: as the picture is trained, or the square if pictures differ in shape."


class SamplingConfig(Section):
    """The drawing of previews, and of the pictures of `tlora sample` unless told otherwise."""

    steps: int = Field(25, ge=1, description="Denoising steps.")
    guidance: float = Field(5.0, ge=0, description="Guidance scale: how much the prompt counts.")
    scheduler: SamplerName = Field(
        "default", description="default: Euler, as published, on both families."
    )
    negative_prompt: str = Field("", description="What the picture must not show (SDXL).")
    width: int | None = Field(None, ge=8, multiple_of=8, description=AS_TRAINED)
    height: int | None = Field(None, ge=8, multiple_of=8, description=AS_TRAINED)


class OutputConfig(Section):
    """The result: its folder, its number format, who is told."""

    dir: str = Field(min_length=1, description="Run folder; must not hold another run.")
    dtype: FileFormat = Field(
        "float16",
        description="Number format of the result; checkpoints are always float32. float16 is half "
        "as large as float32, and pictures are the same to one level of 255 (measured).",
    )
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        ["tensorboard"],
        description="Who is told of each step and preview, beside metrics.jsonl. tensorboard: "
        "event files in the run folder. wandb, trackio: packages of these names.",
    )
    project: str = Field(
        PRODUCT, min_length=1, description="Project in which wandb and trackio show the run."
    )

    @model_validator(mode="before")
    @classmethod
    def _read_old_switch(cls, data: Any) -> Any:
        """Read `tensorboard: true`, as runs wrote it before there was `trackers`."""
        if not isinstance(data, dict) or not isinstance(data.get("tensorboard"), bool):
            return data
        rest = {key: value for key, value in data.items() if key != "tensorboard"}
        trackers = rest.get("trackers", [])
        if not isinstance(trackers, list):
            return rest
        if data["tensorboard"]:
            named = "tensorboard" in trackers
            return {**rest, "trackers": trackers if named else ["tensorboard", *trackers]}
        if "tensorboard" in trackers:
            raise ValueError("`tensorboard: false` contradicts `trackers`; drop it")
        return {**rest, "trackers": trackers}

    def problems(self) -> Iterator[Problem]:
        """Yield a tracker that is named twice."""
        if len(set(self.trackers)) < len(self.trackers):
            yield Problem("a tracker is named twice", ("trackers",))


class Recipe(Section):
    """A whole run."""

    recipe: RecipeName = Field(
        PAPER,
        description="Where settings come from that are left out. "
        + "; ".join(f"{name}: {about}" for name, about in NAMED.items())
        + ".",
    )
    family: FamilyName = Field(description="Model family of the base; it sets the defaults.")
    base: BaseModelConfig = Field(description="The pretrained model; a plain string is its name.")
    concept: ConceptConfig
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    output: OutputConfig

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, data: Any) -> Any:
        """Let `base` be a string, and put the family's published settings under the user's."""
        if not isinstance(data, dict):
            return data
        if isinstance(data.get("base"), str):
            data = {**data, "base": {"model": data["base"]}}
        family, adapter = data.get("family"), data.get("adapter")
        if not isinstance(family, str):
            return data
        method = chosen_method(family, adapter)
        train = data.get("train")
        if isinstance(train, dict) and isinstance(train.get("memory"), str):
            data = merged({"train": memory_preset(family, train["memory"])}, data)
        base = data.get("base")
        model = base.get("model") if isinstance(base, dict) else None
        model = model if isinstance(model, str) else None  # what else it is, is told below
        named = recipe_settings(data.get("recipe"), family, method, model)
        return merged(merged({"adapter": {"method": method}}, named), data)

    @property
    def learns_word(self) -> bool:
        """Whether the placeholder's embedding is learned, so that the text encoders stay."""
        return self.train.word_lr is not None or METHODS[self.adapter.method].word

    def problems(self) -> Iterator[Problem]:
        """Yield settings that the family doesn't know."""
        family = FAMILIES[self.family]
        if self.train.objective not in family.objectives:
            yield Problem(
                f"{self.train.objective} does not fit {family.name}; "
                f"use one of {', '.join(family.objectives)}",
                ("train.objective", "family"),
            )
        yield from self._reach_problems(family)
        if self.learns_word and family.no_learned_words:
            is_word = METHODS[self.adapter.method].word
            who, do = (self.adapter.method, "use another") if is_word else ("it", "leave it out")
            yield Problem(
                f"{who} learns a word: {family.no_learned_words}; {do}",
                ("adapter.method" if is_word else "train.word_lr", "family"),
            )
        quantized = self.train.quantization is not None
        if quantized and self.adapter.init.startswith("weights"):
            yield Problem(
                f"{self.adapter.init} decomposes the base weights, which are quantized; "
                "use a random start, or drop train.quantization",
                ("adapter.init", "train.quantization"),
            )
        if quantized and self.base.model.endswith(SINGLE_FILES):
            yield Problem(
                "a single-file base can't be quantized while it is loaded; use a diffusers folder "
                "or a Hub id as base, or drop it",
                ("train.quantization", "base.model"),
            )
        card, cards = self.train.memory, family.memory_presets
        if card is not None and card not in cards:
            known = f"; its smallest is {list(cards)[-1]}" if cards else ""
            yield Problem(
                f"no settings make {family.title} fit a card of {card.upper()}{known}",
                ("train.memory", "family"),
            )
        if self.train.crop == SUBJECT and self.concept.masks is None:
            yield Problem(
                "the subject's place is known by its mask: say masks: auto",
                ("train.crop", "concept.masks"),
            )
        yield from self.execution_problems(self.train.execution)
        yield from offload_problems(self.train, self.adapter)
        yield from word_problems(self.train, self.adapter)
        if self.train.device == "cpu":
            for key in GPU_ONLY:
                if needs_gpu(key, attrgetter(key)(self)):
                    yield Problem("needs a GPU, but train.device is cpu", (key, "train.device"))
        yield from self._drawing_problems(family)

    def _reach_problems(self, family: Family) -> Iterator[Problem]:
        """Yield layers by a name that the family doesn't know, or that the method can't change."""
        targets, known = self.adapter.targets, family.reaches
        if targets not in REACHES:
            return
        if targets not in known:
            yield Problem(
                f"{family.name} does not say which layers `{targets}` are; use "
                f"{' or '.join(known)}, or a regular expression for full layer names",
                ("adapter.targets", "family"),
            )
        why = METHODS[self.adapter.method].no_convolutions
        if why and targets == WIDEST and known.get(WIDEST) != known.get(LINEAR):
            yield Problem(f"{why}; use {LINEAR}", ("adapter.targets", "adapter.method"))

    def _drawing_problems(self, family: Family) -> Iterator[Problem]:
        """Yield sizes and settings of sampling that the family doesn't know."""
        sampling = self.sampling
        if family.no_negative_prompt and sampling.negative_prompt:
            yield Problem(family.no_negative_prompt, ("sampling.negative_prompt", "family"))
        if sampling.scheduler not in family.samplers:
            yield Problem(
                f"{sampling.scheduler} is not defined for {family.process}; "
                f"use one of {', '.join(family.samplers)}",
                ("sampling.scheduler", "family"),
            )
        sides = {
            "train.resolution": self.train.resolution,
            "sampling.width": sampling.width,
            "sampling.height": sampling.height,
        }
        unit = family.pixel_multiple
        for key, side in sides.items():
            if side is not None and side % unit:
                yield Problem(
                    f"must be a multiple of {unit} for {family.name}, got {side}", (key, "family")
                )

    def execution_problems(self, execution: str) -> Iterator[Problem]:
        """Yield settings under which a step can't be run in this way."""
        if execution == "cuda_graph" and (why := FAMILIES[self.family].no_recorded_step):
            yield Problem(f"{why}; use eager or compile", ("train.execution", "family"))
        yield from execution_problems(execution, self.train, self.adapter)


SINGLE_FILES = (".safetensors", ".ckpt")
"""Ends of the name of a base in one file."""
