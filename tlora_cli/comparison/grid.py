"""The grid file: which runs are compared, and how, as typed and documented models.

Every run, a cell of the grid, is an ordinary recipe: the base recipe with the values of the axes
and of a variant put in (`expansion.py`). This module imports no torch, so a mistake is reported at
once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from tlora_cli.evaluation.encoder_kinds import KINDS
from tlora_cli.formulas.noise_axis import AXIS
from tlora_cli.foundation.bundled import concepts, shipped
from tlora_cli.foundation.errors import known_names
from tlora_cli.recipe.adapter_sections import ScheduleConfig
from tlora_cli.recipe.mistakes import KeyPath, Layout
from tlora_cli.recipe.strict_section import MethodName, Problem, Section, check_files, check_prompt


def check_name(name: str) -> str:
    """Refuse what can't be part of a folder's name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name):
        raise ValueError(f"{name!r} is no name; take letters, digits, _ and -")
    return name


class ConceptEntry(Section):
    """One thing to learn: a concept of the built-in world, or pictures of your own."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    name: str = Field(
        description="Name in tables and folders: letters, digits, _ and -. Of a concept of the "
        "built-in world, this is all that is needed.",
    )
    images: str | list[str] | None = Field(
        None, description="As concept.images of a recipe. Default: the built-in training picture."
    )
    class_name: str | None = Field(
        None, alias="class", min_length=1, description="Class of the concept, e.g. dog."
    )
    masks: str | list[str] | None = Field(None, description="As concept.masks of a recipe.")
    real: str | list[str] | None = Field(
        None, description="Pictures that results are compared with. Default: images."
    )
    placeholder: str | None = Field(None, min_length=1, description="Rare word for it.")
    prompt: str | None = Field(None, min_length=1, description="Training prompt.")

    @field_validator("name")
    @classmethod
    def _is_name(cls, value: str) -> str:
        return check_name(value)

    @field_validator("images", "masks", "real", mode="before")
    @classmethod
    def _are_files(cls, value: Any) -> Any:
        return value if value is None else check_files(value)

    @field_validator("prompt")
    @classmethod
    def _prompt_braces(cls, value: str | None) -> str | None:
        return value if value is None else check_prompt(value)

    def problems(self) -> Iterator[Problem]:
        """Yield a concept that is neither built in nor has pictures and a class."""
        if self.images is None and self.name not in (known := concepts()):
            yield Problem(
                f"{self.name} is no concept of {shipped().title} "
                f"({known_names(self.name, known)}); a concept of your own needs "
                "name, images and class",
                ("name",),
            )
        if self.images is not None and self.class_name is None:
            yield Problem("missing (Class of the concept, e.g. dog.)", ("class",))


class Block(Section):
    """The axes: every combination of their values is run. What is left out is the recipe's own."""

    method: list[MethodName] | None = Field(None, min_length=1, description="Methods.")
    rank: list[int] | None = Field(
        None, min_length=1, description="Ranks; methods without ranks run once, without them."
    )
    schedule: list[ScheduleConfig] | None = Field(
        None,
        min_length=1,
        description="Rank schedules: names, or sections as adapter.schedule of a recipe. Every "
        "method of the block must take one.",
    )
    concept: list[ConceptEntry] | None = Field(
        None,
        min_length=1,
        description="Built-in concepts by name, or sections; {folder: photos, pictures: 1} is a "
        "concept for each folder in photos.",
    )
    seed: list[int] | None = Field(None, min_length=1, description="Training seeds.")
    variant: list[str] | None = Field(
        None, min_length=1, description="Names of variants; default: all that there are."
    )

    @field_validator("rank", "seed")
    @classmethod
    def _in_range(cls, values: list[int] | None, info: Any) -> list[int] | None:
        least = 1 if info.field_name == "rank" else 0
        for value in values or []:
            if value < least:
                raise ValueError(f"must be at least {least}, got {value}")
        return values

    def problems(self) -> Iterator[Problem]:
        """Yield values that are given twice."""
        for axis in ("method", "rank", "schedule", "seed", "variant"):
            values = getattr(self, axis) or []
            for value in values:
                if values.count(value) > 1:
                    shown = label_of(value) if isinstance(value, ScheduleConfig) else value
                    yield Problem(f"{shown} is given twice", (axis,))
                    break
        names = [one.name for one in self.concept or []]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            yield Problem(f"{', '.join(twice)} is given twice", ("concept",))


class EvaluateConfig(Section):
    """The evaluation of every cell; the same settings as of `tlora evaluate`."""

    metrics: list[str] = Field(
        default_factory=lambda: ["clip", "dino"],
        min_length=1,
        description=f"{', '.join(KINDS)}; NAME=CHECKPOINT for another checkpoint.",
    )
    suite: Literal["live", "object"] | None = Field(
        None, description="Prompt suite. Default: what suits the concept."
    )
    prompts: str | None = Field(
        None, min_length=1, description="YAML or JSON file with prompts of your own."
    )
    sections: list[str] = Field(
        default_factory=list, description="Lists of the prompts file to take; default: all."
    )
    seed: int = Field(0, ge=0, description="Seed of the first picture of each prompt.")
    count: int = Field(5, ge=1, description="Pictures of each prompt.")
    base_count: int = Field(15, ge=1, description="Pictures of the base prompt.")
    free_count: int = Field(2, ge=0, description="Pictures of each prompt without the concept.")
    batch_size: int = Field(4, ge=1, description="Pictures drawn together.")
    mask: str = Field(
        "auto",
        min_length=1,
        description="none, or the checkpoint that finds the subject; auto: CLIPSeg, but none on "
        "the built-in world.",
    )

    @field_validator("metrics")
    @classmethod
    def _are_known(cls, values: list[str]) -> list[str]:
        names = [value.partition("=")[0] for value in values]
        for name in names:
            if name not in KINDS:
                raise ValueError(f"there is no metric {name!r}; {known_names(name, KINDS)}")
            if names.count(name) > 1:
                raise ValueError(f"{name} is given twice")
        return values

    @property
    def checkpoints(self) -> dict[str, str | None]:
        """Encoder -> checkpoint, None for its default."""
        parts = (value.partition("=") for value in self.metrics)
        return {name: checkpoint or None for name, _, checkpoint in parts}

    def problems(self) -> Iterator[Problem]:
        """Yield prompts that are given two ways."""
        if self.suite is not None and self.prompts is not None:
            yield Problem("give either suite or prompts", ("suite", "prompts"))
        if self.sections and self.prompts is None:
            yield Problem("sections belong to a prompts file", ("sections", "prompts"))


class BaselineConfig(Section):
    """The arm that others are compared with. What is left out is that of the other."""

    method: MethodName = Field(description="Its method.")
    rank: int | None = Field(None, ge=1, description="Its rank; default: that of the other.")
    schedule: str | None = Field(None, description="Its schedule, as tables name it.")
    variant: str | None = Field(None, description="Its variant.")


class PublishedFigure(BaselineConfig):
    """The published figures of an arm, by name of the metric. What is left out may be anything."""

    scores: dict[str, float] = Field(description="Metric -> value.")


class PublishedConfig(Section):
    """The table of a paper that the grid runs again."""

    source: str = Field(min_length=1, description="The table, and the paper.")
    figures: list[PublishedFigure] = Field(
        default_factory=list, description="Its figures; tables and page set them beside one's own."
    )
    notes: list[str] = Field(
        default_factory=list,
        description="What the paper leaves unsaid, or is otherwise here; `tlora validate` says it.",
    )


class Grid(Section):
    """A whole comparison."""

    recipe: str | dict[str, Any] = Field(
        description="The base recipe: a file, or the recipe itself. It may lack what the grid "
        "sets, and output."
    )
    output: str = Field(min_length=1, description="Folder for all runs and tables.")
    grid: list[Block] = Field(
        min_length=1, description="The axes; a list of sections for several grids in one table."
    )
    variants: dict[str, dict[str, Any]] = Field(
        default_factory=dict,
        description="Name -> recipe values by dotted key. Each multiplies the grid; a variant "
        "without values is the recipe as it is. In concept.images and concept.masks, {concept} is "
        "the concept's name.",
    )
    baseline: BaselineConfig | None = Field(
        None, description="What the others are compared with, concept by concept, seed by seed."
    )
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    published: PublishedConfig | None = Field(None, description="The table that it runs again.")
    workers: int | None = Field(
        None, ge=1, description="Cells at once. Default: one a GPU; one without GPUs."
    )
    threads: int = Field(
        1,
        ge=1,
        description="CPU threads of each cell. Part of the grid, because the last bits of a result "
        "can depend on it.",
    )

    @field_validator("recipe", mode="before")
    @classmethod
    def _is_recipe(cls, value: Any) -> Any:
        if not (isinstance(value, dict) or (isinstance(value, str) and value)):
            raise ValueError("must be the path of a recipe, or a recipe")
        return value

    @field_validator("variants")
    @classmethod
    def _have_names(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in value:
            check_name(name)
        return value


GRID = Layout(
    Grid,
    "grid",
    {("grid", "concept"): "a concept's name", ("grid", "schedule"): "a schedule's name"},
)
"""The keys of a grid file."""


def label_of(schedule: ScheduleConfig) -> str:
    """Return a schedule's name in tables and folders, e.g. linear-alpha2, step-0_64-800_32."""
    label: str = schedule.kind
    if schedule.alpha != 1.0:
        label += f"-alpha{schedule.alpha:g}"
    if schedule.axis == AXIS:
        label += f"-{AXIS}"
    return "-".join([label, *(f"{t:g}_{rank}" for t, rank in schedule.points or [])])


def spelled_out(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a grid file's data without short forms: lists and sections as the models have them.

    `grid` may be one section; concepts and schedules may be names.
    """
    full = dict(data)
    blocks = full.get("grid")
    if isinstance(blocks, dict):
        blocks = [blocks]
    if isinstance(blocks, list):
        full["grid"] = [_spelled_block(block) for block in blocks]
    return full


def as_written(path: KeyPath, data: Mapping[str, Any]) -> KeyPath:
    """Return where a value of the spelled-out data stands in the data as it was written."""
    if path[:1] == ("grid",) and isinstance(data.get("grid"), dict):
        path = (path[0], *path[2:])
    found: list[str | int] = []
    here: Any = data
    for part in path:
        if isinstance(here, str):
            break  # a name in place of a section
        if isinstance(here, dict):
            here = here.get(str(part))
        elif isinstance(here, list) and isinstance(part, int) and part < len(here):
            here = here[part]
        found.append(part)
    return tuple(found)


def _spelled_block(block: Any) -> Any:
    if not isinstance(block, dict):
        return block
    full = dict(block)
    for axis, key in (("concept", "name"), ("schedule", "kind")):
        if isinstance(full.get(axis), list):
            full[axis] = [{key: one} if isinstance(one, str) else one for one in full[axis]]
    return full
