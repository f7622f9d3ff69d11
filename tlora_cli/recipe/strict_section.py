"""The base of every section of the recipe: strictness, and checks of values that go together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from tlora_cli.families import FAMILIES, objective_names, sampler_names
from tlora_cli.formulas.schedules import SCHEDULES
from tlora_cli.foundation.prompts import CLASS, CONCEPT_MARKS, PLACEHOLDER
from tlora_cli.methods import METHODS
from tlora_cli.methods.tlora import STARTS
from tlora_cli.recipe.named import NAMED

if TYPE_CHECKING:  # it can't follow names that come from a registry
    FamilyName: TypeAlias = str
    ObjectiveName: TypeAlias = str
    SamplerName: TypeAlias = str
    MethodName: TypeAlias = str
    ScheduleName: TypeAlias = str
    InitName: TypeAlias = str
    RecipeName: TypeAlias = str
else:
    FamilyName = Literal[tuple(FAMILIES)]
    ObjectiveName = Literal[objective_names()]
    SamplerName = Literal[sampler_names()]
    MethodName = Literal[tuple(METHODS)]
    ScheduleName = Literal[tuple(SCHEDULES)]
    InitName = Literal[STARTS]
    RecipeName = Literal[tuple(NAMED)]

SectionT = TypeVar("SectionT", bound="Section")


class Problem(NamedTuple):
    """Values that are right one by one but don't go together."""

    text: str
    keys: tuple[str, ...]
    """The keys it concerns, dotted, from the section down; the one to mend first."""


class Section(BaseModel):
    """A part of the recipe: frozen, strict about names and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_together(self: SectionT) -> SectionT:
        """Raise one error that carries every problem of the section, each with its keys."""
        problems = list(self.problems())
        if problems:
            text = "; ".join(f"{keys[0]}: {text}" for text, keys in problems)
            raise PydanticCustomError(
                "inconsistent", "{text}", {"text": text, "problems": problems}
            )
        return self

    def problems(self) -> Iterator[Problem]:
        """Yield what does not go together in this section."""
        return iter(())


def check_prompt(prompt: str) -> str:
    """Refuse braces that nothing will fill in."""
    rest = prompt
    for name in (PLACEHOLDER, CLASS, *CONCEPT_MARKS):
        rest = rest.replace(name, "")
    if wrong := re.search(r"{[^{}]*}?|}", rest):
        raise ValueError(f"braces may only hold {PLACEHOLDER} and {CLASS}, got {wrong[0]!r}")
    return prompt


def check_prompts(prompts: list[str] | None) -> list[str] | None:
    """Refuse empty prompts, and braces that nothing will fill in."""
    for prompt in prompts or []:
        if not prompt.strip():
            raise ValueError("a prompt is empty")
        check_prompt(prompt)
    return prompts


def check_expression(expression: str) -> str:
    """Refuse what is no regular expression."""
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from error
    except (OverflowError, RecursionError) as error:  # a{99999999999}, thousands of brackets
        raise ValueError("must be a regular expression that is not too large") from error
    return expression


def check_files(value: Any) -> Any:
    """Ask for a path or a list of paths before the union does, which reports each member."""
    paths = [value] if isinstance(value, str) else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError("must be a path or a list of paths")
    if not paths or not all(paths):
        raise ValueError("must name at least one file" if not paths else "must not be empty")
    return value
