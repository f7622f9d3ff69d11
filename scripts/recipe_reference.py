#!/usr/bin/env python3
"""Write docs/recipe.md, the reference of the recipe, from the models of the recipe.

Keys, types, defaults and descriptions are those of the models; the defaults that depend on family,
method, base or card are computed by loading recipes. The examples are in recipe_examples.yaml.

    python scripts/recipe_reference.py
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.bundled import bases
from tlora_cli.foundation.files import write_text
from tlora_cli.methods import METHODS
from tlora_cli.recipe.mistakes import RECIPE, KeyPath, dotted
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.named import PHOTO
from tlora_cli.recipe.strict_section import MethodName

PAGE = Path(__file__).resolve().parents[1] / "docs" / "recipe.md"

LEAST: dict[str, Any] = {
    "family": "sdxl",
    "base": "stabilityai/stable-diffusion-xl-base-1.0",
    "concept": {"images": "dog.jpg", "class": "dog"},
    "output": {"dir": "runs/dog"},
}
"""Settings that a recipe can't do without; the examples lie over them."""

EXAMPLES: dict[str, list[str]] = yaml.safe_load(
    (Path(__file__).parent / "recipe_examples.yaml").read_text(encoding="utf-8")
)
"""Section, dotted, or `whole` -> examples, which together have each of its keys."""

HEAD = """\
# The recipe

Every key, as the program knows it: `python scripts/recipe_reference.py` writes this page from the
models in `tlora_cli/recipe*.py`, and a test holds the two together.

```bash
tlora recipe schema            # the same as JSON schema, for editors
tlora recipe show dog.yaml     # a recipe with every default filled in
tlora recipe check dog.yaml    # what is wrong with it
```

A key that isn't here is an error. `--set train.steps=400` sets a key for one run; its value is
YAML. [cookbook.md](cookbook.md) has recipes for real jobs, [methods.md](methods.md) the methods.
"""

LEFT_OUT = "what-a-recipe-leaves-out"
"""Anchor of the tables of defaults."""


def page() -> str:
    """Return the whole page."""
    varying = _varying()
    sections = [_section(path, varying) for path in RECIPE.sections()]
    return "\n".join([HEAD, *sections, *_left_out(varying)])


def key_rows(path: KeyPath) -> list[KeyPath]:
    """Return the paths of the keys in a section."""
    return [(*path, key) for key in RECIPE.keys_of(path)]


def example_keys(text: str) -> set[str]:
    """Return the dotted paths of all keys in an example, sections included."""

    def walk(value: Any, above: KeyPath) -> Iterator[str]:
        if isinstance(value, dict):
            for key, inside in value.items():
                yield dotted((*above, key))
                yield from walk(inside, (*above, key))

    return set(walk(yaml.safe_load(text), ()))


# --- one section ----------------------------------------------------------------------------------


def _section(path: KeyPath, varying: set[str]) -> str:
    model = RECIPE.section_at(path)
    assert model is not None and model.__doc__
    title = f"## `{dotted(path)}`" if path else "## The whole"
    about = " ".join(model.__doc__.split())
    rows = ["| key | type | default | what it means |", "|---|---|---|---|"]
    rows += [_row(key, varying) for key in key_rows(path)]
    examples = [f"```yaml\n{text}```\n" for text in EXAMPLES.get(dotted(path) or "whole", [])]
    return "\n".join([title, "", about, "", *rows, "", *examples])


def _row(path: KeyPath, varying: set[str]) -> str:
    field = RECIPE.field_at(path)
    section = RECIPE.section_at(path)
    name = f"[`{path[-1]}`](#{_anchor(path)})" if section else f"`{path[-1]}`"
    about = field.description or " ".join(str(section.__doc__).split())
    cells = [name, _type(path), _default(path, varying), about]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _anchor(path: KeyPath) -> str:
    """Return the anchor of a section's headline, as GitHub makes it."""
    return dotted(path).replace(".", "")


def _type(path: KeyPath) -> str:
    """Return a field's type and bounds in words."""
    field = RECIPE.field_at(path)
    kinds = [kind for kind in _members(field.annotation) if kind is not type(None)]
    words = " or ".join(dict.fromkeys(_word(kind) for kind in kinds))
    if path == ("base",):
        words = "text or section"
    bounds = [text for piece in field.metadata if (text := _bound(piece))]
    return ", ".join([words, *bounds])


def _members(annotation: Any) -> tuple[Any, ...]:
    return (
        get_args(annotation)
        if get_origin(annotation) in (Union, types.UnionType)
        else (annotation,)
    )


def _word(kind: Any) -> str:
    simple = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    if kind in simple:
        return simple[kind]
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in inside)
    if origin is tuple:
        return "pair of numbers"
    if origin is list and get_origin(inside[0]) is Literal:
        return f"list of {_word(inside[0])}"
    if origin is list:
        return "list of texts" if inside == (str,) else "list of pairs"
    return "section"


def _bound(piece: Any) -> str:
    words = {
        "gt": "above {}",
        "ge": "at least {}",
        "lt": "below {}",
        "le": "at most {}",
        "multiple_of": "a multiple of {}",
    }
    for name, text in words.items():
        if (value := getattr(piece, name, None)) is not None:
            return text.format("2^63" if value == 2**63 else value)
    return ""


def _default(path: KeyPath, varying: set[str]) -> str:
    field, key = RECIPE.field_at(path), dotted(path)
    if key in varying:
        sdxl, flux = (_shown(_value(_filled(family, "tlora"), key)) for family in ("sdxl", "flux"))
        return f"{sdxl if sdxl == flux else f'{sdxl}, FLUX {flux}'}; [by method](#{LEFT_OUT})"
    if field.is_required():
        return "needed"
    if RECIPE.section_at(path) and field.default is not None:
        return "as below"
    return _shown(field.get_default(call_default_factory=False))


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, float) and 0 < abs(value) < 0.01:
        return re.sub(r"e-0", "e-", f"{value:g}" if "e" in f"{value:g}" else f"{value:.0e}")
    return f"`{value}`" if isinstance(value, str) and value else str(value) or "empty"


# --- what depends on family, method, base and card ------------------------------------------------


def _leaves() -> list[str]:
    found = [key for path in RECIPE.sections() for key in key_rows(path)]
    return [dotted(key) for key in found if not RECIPE.section_at(key)]


def _value(recipe: Recipe, key: str) -> Any:
    value: Any = recipe.model_dump(by_alias=True)
    for part in key.split("."):
        value = None if value is None else value[part]
    return value


def _filled(family: str, method: str, base: str | None = None, **more: str) -> Recipe:
    """Return the recipe of a family and method that leaves everything out."""
    own = {"family": family, "base": base or LEAST["base"], "adapter": {"method": method}, **more}
    return Recipe.model_validate({**LEAST, **own})


def _methods(family: str) -> list[str]:
    """Return the methods that a family takes."""
    kind = FAMILIES[family]
    without = [] if kind.text_keys_values else ["custom_diffusion"]  # it trains those alone
    without += [name for name, one in METHODS.items() if one.word and kind.no_learned_words]
    return [method for method in get_args(MethodName) if method not in without]


def _varying() -> set[str]:
    """Return the keys whose default depends on the family or the method."""
    recipes = [_filled(family, method) for family in FAMILIES for method in _methods(family)]
    chosen = ("family", "adapter.method")
    keys = [key for key in _leaves() if key not in chosen and not key.startswith("concept.")]
    return {key for key in keys if len({str(_value(recipe, key)) for recipe in recipes}) > 1}


def _left_out(varying: set[str]) -> list[str]:
    keys = [key for key in _leaves() if key in varying]
    names = [f"`{key.removeprefix('train.').removeprefix('adapter.')}`" for key in keys]
    lines = [
        "## What a recipe leaves out",
        "",
        "It has the published settings of its family and method (T-LoRA, section 5). Where nothing",
        "was published, as for most methods on FLUX, it has the defaults of the models.",
    ]
    for family in FAMILIES:
        rows: dict[tuple[str, ...], list[str]] = {}
        for method in _methods(family):
            recipe, ranks = _filled(family, method), METHODS[method].low_rank
            values = [_shown(_value(recipe, k)) if ranks or "rank" not in k else "" for k in keys]
            rows.setdefault(tuple(values), []).append(f"`{method}`")
        lines += ["", f"| {family} | {' | '.join(names)} |", "|---" * (len(keys) + 1) + "|"]
        lines += [f"| {', '.join(own)} | {' | '.join(values)} |" for values, own in rows.items()]
    prior = _value(_filled("sdxl", "custom_diffusion"), "concept.prior.count")
    lines += [
        "",
        "A `min_rank` that is left out is half of the recipe's `rank` on SDXL, and 1 elsewhere.\n"
        f"`custom_diffusion` has `concept.prior`, with {prior} pictures.",
        "",
    ]
    return [*lines, *_photo(), *_built_in(), *_cards()]


def _photo() -> list[str]:
    """Return what `recipe: photo` changes."""
    lines = ["`recipe: photo` sets, where the recipe doesn't:", "", "| base | |", "|---|---|"]
    for name in ("of your own", *bases()):
        family, base = bases().get(name, "sdxl"), name if name in bases() else None
        paper = _filled(family, "tlora", base)
        photo = _filled(family, "tlora", base, recipe=PHOTO)
        changed = [
            f"`{key}: {str(_value(photo, key)).lower()}`"
            for key in _leaves()
            if key != "recipe"
            and not key.startswith("concept.scenes.")
            and _value(photo, key) != _value(paper, key)
        ]
        scenes = ["`concept.scenes: {loss: whole}`"] if photo.concept.scenes else []
        lines.append(f"| {name} | {', '.join([*scenes, *changed])} |")
    return [*lines, ""]


def _built_in() -> list[str]:
    """Return what a built-in base changes."""
    lines = []
    for base, family in bases().items():
        lines += [f"On the built-in `{base}`:", "", "| method | |", "|---|---|"]
        for method in ("tlora", "vanilla_tlora", "ortho_lora", "lora"):
            own, plain = _filled(family, method, base), _filled(family, method)
            changed = [
                f"`{key}: {_value(own, key)}`"
                for key in _leaves()
                if not key.startswith("base.") and _value(own, key) != _value(plain, key)
            ]
            lines.append(f"| `{method}` | {', '.join(changed)} |")
        lines.append("")
    return lines


def _cards() -> list[str]:
    """Return what `train.memory` sets."""
    lines = [
        "`train.memory` sets, where the recipe doesn't:",
        "",
        f"| | {' | '.join(FAMILIES)} |",
        "|---" * (1 + len(FAMILIES)) + "|",
    ]
    presets_of = [family.memory_presets for family in FAMILIES.values()]
    for size in presets_of[0]:
        cells = [
            ", ".join(f"`{key}: {str(value).lower()}`" for key, value in presets[size].items())
            or "nothing"
            if size in presets
            else "does not fit"
            for presets in presets_of
        ]
        lines.append(f"| `memory: {size}` | {' | '.join(cells)} |")
    return [*lines, ""]


if __name__ == "__main__":
    write_text(PAGE, page())
    print(PAGE)
