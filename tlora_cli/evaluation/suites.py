"""Prompt suites: our own for living subjects and for objects, and those of any prompts file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.foundation.errors import UserError, known_names
from tlora_cli.foundation.prompts import CLASS, CONCEPT_MARKS, PLACEHOLDER, has_mark, odd_mark
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.recipe.mistakes import described
from tlora_cli.recipe.reading import read_text
from tlora_cli.recipe.yaml_text import YAMLMistake, parse_yaml

BASE = "a photo of a V*"
"""The base prompt, on which image similarity is measured (T-LoRA, section 5)."""


@dataclass(frozen=True)
class Suite:
    """Prompts with V* for the concept.

    Attributes:
        contextual: the concept in another place, light, style or color.
        complex: several demands at once.
    """

    contextual: tuple[str, ...]
    complex: tuple[str, ...]

    @property
    def prompts(self) -> tuple[str, ...]:
        """Both."""
        return (*self.contextual, *self.complex)


SUITES: dict[str, Suite] = {
    "live": Suite(
        contextual=(
            "a V* in deep snow",
            "a V* on a sandy beach",
            "a V* in a field of sunflowers",
            "a V* in a pine forest",
            "a V* on a busy street at night",
            "a V* on a mountain top",
            "a V* in a library between high shelves",
            "a V* under a waterfall",
            "a V* on a wooden boat",
            "a V* in front of a windmill",
            "a V* sleeping in a basket",
            "a V* jumping over a puddle",
            "a V* seen from behind",
            "a V* looking out of a train window",
            "a V* wearing a yellow raincoat",
            "a V* wearing a knitted scarf",
            "a V* wearing round glasses",
            "a V* with a flower crown",
            "a blue V*",
            "a V* with golden fur",
            "a V* at sunset, against the light",
            "a V* in thick fog",
            "a watercolor painting of a V*",
            "a pencil drawing of a V*",
            "a stained glass window with a V*",
        ),
        complex=(
            "a V* in a baker's apron beside a brick oven, warm light on trays of fresh bread",
            "a V* in a diving suit under water, among corals and a swarm of silver fish",
            "a V* riding a bicycle through a market in the rain, lanterns mirrored in the wet road",
            "a V* as captain on the deck of a sailing ship in a storm, seen from below",
            "a V* on a stage with a violin, in a spotlight, an audience in the dark",
            "a V* in a spacesuit planting a flag on a red planet, two moons in the sky",
        ),
    ),
    "object": Suite(
        contextual=(
            "a V* in deep snow",
            "a V* on a sandy beach",
            "a V* in a field of sunflowers",
            "a V* on a mossy rock in a forest",
            "a V* on a busy street at night",
            "a V* on a marble table",
            "a V* on a shelf in a library",
            "a V* in a shop window",
            "a V* on a wooden boat",
            "a V* in front of a windmill",
            "a V* floating on a lake",
            "a V* on a pile of autumn leaves",
            "a V* held in two hands",
            "a V* wrapped in paper with a ribbon",
            "a V* seen from above",
            "a V* next to a cup of coffee",
            "a blue V*",
            "a V* made of glass",
            "a V* carved from wood",
            "a V* covered in moss",
            "a V* at sunset, against the light",
            "a V* in thick fog",
            "a watercolor painting of a V*",
            "a pencil drawing of a V*",
            "a mosaic of a V*",
        ),
        complex=(
            "a V* on the counter of a bakery at dawn, flour in the air, bread cooling behind it",
            "a V* on the sea floor among corals, a diver's lamp shining on it from the left",
            "a V* in a market stall in the rain, lanterns mirrored in the wet road",
            "a V* on the deck of a sailing ship in a storm, tied down with ropes",
            "a V* on a velvet cushion in a museum, visitors blurred behind the glass",
            "a V* half buried in red sand on another planet, two moons in the sky",
        ),
    ),
}
"""Name -> suite: 25 contextual and 6 complex prompts each."""

CONCEPT_FREE = (
    "a photo of a lighthouse by the sea",
    "a bowl of fruit on a kitchen table",
    "a street with old houses in the morning",
    "a portrait of an old fisherman",
    "a forest path in autumn",
    "a red bicycle against a white wall",
    "a city skyline at night",
    "a field under storm clouds",
)
"""Prompts that don't ask for the concept: an adapter should leave their pictures alone (drift)."""


def find_suite(name: str) -> Suite:
    """Return a suite by name.

    Raises:
        UserError: if there is none of that name.
    """
    if name not in SUITES:
        raise UserError(
            f"there is no prompt suite {name!r}", where="--suite", do=known_names(name, SUITES)
        )
    return SUITES[name]


LIVING = {
    *("animal", "baby", "bear", "bird", "boy", "cat", "child", "cow", "dog", "dragon", "fish"),
    *("fox", "frog", "girl", "horse", "kitten", "lion", "man", "monkey", "mouse", "owl", "panda"),
    *("parrot", "person", "pig", "puppy", "rabbit", "sheep", "squirrel", "tiger", "turtle"),
    "woman",
}
"""Classes that get the suite `live` unasked, by their last word."""


def suite_for(class_name: str) -> Suite:
    """Return the suite that suits a class."""
    last = class_name.lower().split()[-1:]
    return SUITES["live" if LIVING.intersection(last) else "object"]


def read_prompts(path: Path, sections: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the prompts of a YAML or JSON file, with V* for the concept.

    Args:
        path: a list of prompts, or lists by name; other values by name are comments.
        sections: names of the lists to take; default: all.

    Raises:
        UserError: if the file can't be read, has no such list, or a prompt names no concept.
    """
    content = _content(path)
    if isinstance(content, list):
        lists: Mapping[str, Any] = {"": content}
    elif isinstance(content, dict):
        lists = {str(name): value for name, value in content.items() if isinstance(value, list)}
    else:
        lists = {}
    if not lists:
        raise UserError("the file holds no list of prompts", str(path), "write a list, or lists")
    for name in sections:
        if name not in lists:
            raise UserError(f"the file has no list {name!r}", str(path), known_names(name, lists))
    chosen = [prompt for name in (sections or lists) for prompt in lists[name]]
    prompts = tuple(_with_mark(prompt, path) for prompt in chosen)
    if not prompts:
        raise UserError("the list of prompts is empty", str(path), "write at least one prompt")
    return tuple(dict.fromkeys(prompts))


def _content(path: Path) -> Any:
    text = read_text(path, "prompts file")
    try:
        if path.suffix.lower() == ".json":
            return parse_json(text)
        parsed = parse_yaml(text)
        if parsed.mistakes:
            raise ValueError(str(parsed.mistakes[0]))
        return parsed.data
    except (ValueError, YAMLMistake) as error:
        reason = f"line {error.line}: {error.text}" if isinstance(error, YAMLMistake) else error
        raise UserError(f"the prompts file is damaged: {reason}", str(path)) from error


def _with_mark(given: Any, path: Path) -> str:
    if not isinstance(given, str):
        raise UserError(f"a prompt must be text, not {described(given)}", str(path))
    prompt: str = given
    prompt = prompt.replace(f"{PLACEHOLDER} {CLASS}", "V*")
    if odd := odd_mark(prompt):
        raise UserError(f"the prompt {prompt!r} is not understood: {odd}", str(path), "mend it")
    if not has_mark(prompt):
        raise UserError(
            f"a prompt names no concept: {prompt!r}",
            where=str(path),
            do=f"write one of {', '.join(CONCEPT_MARKS)} where the concept belongs",
        )
    for mark in CONCEPT_MARKS:
        prompt = prompt.replace(mark, "V*")
    return prompt
