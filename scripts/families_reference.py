#!/usr/bin/env python3
"""Write docs/families.md, the table of the model families, from what each family says of itself.

Parameters and layers are counted on the configurations, without weights.

    python scripts/families_reference.py
"""

from __future__ import annotations

from pathlib import Path

from tlora_cli.families import FAMILIES, Family
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.foundation.files import write_text
from tlora_cli.recipe.models import Recipe

PAGE = Path(__file__).resolve().parents[1] / "docs" / "families.md"
TEXT = Path(__file__).parent / "families_text.md"
"""The text below the tables; written by hand."""


def page() -> str:
    """Return the page."""
    rows = [_row(family, base) for family in FAMILIES.values() for base in _bases(family)]
    shared = [_shared(family) for family in FAMILIES.values()]
    lines = [
        "# Model families",
        "",
        "`python scripts/families_reference.py` writes the tables from `tlora_cli/families/`,",
        "where each family is one file.",
        "",
        "| `family` | base | pipeline | denoiser | layers adapted | trained by `lora` | license |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        "Denoiser: billions of parameters. Layers: those of `adapter.targets: attention`, and the",
        "parameters at the rank that a recipe has if it says none. License: as the base's own page",
        "says it; a gap is one that was not looked up.",
        "",
        "| `family` | method if none is named | steps, guidance of drawing | sides "
        "| a negative prompt | schedulers |",
        "|---|---|---|---|---|---|",
        *shared,
        "",
    ]
    return "\n".join(lines) + "\n" + TEXT.read_text(encoding="utf-8")


def _bases(family: Family) -> list[str]:
    return [family.standard_base, *family.other_bases]


def _row(family: Family, base: str) -> str:
    denoiser = meta_denoiser(family.name, base)
    whole = sum(parameter.numel() for parameter in denoiser.parameters())
    layers = family.target_layers(denoiser).values()
    rank = _recipe(family).adapter.rank or 0
    trained = rank * sum(one.in_features + one.out_features for one in layers)
    told = denoiser.config.get("guidance_embeds") and family.other_pipelines
    place = family.other_pipelines[0] if told else family.pipeline_class
    license = family.licenses.get(base)
    cells = [
        f"`{family.name}`",
        f"{base.partition('/')[2]}",
        place.partition(":")[2],
        f"{whole / 1e9:.1f}",
        f"{len(layers)}",
        f"{trained:,} at rank {rank}",
        (license.name or license.id) if license else "",
    ]
    return f"| {' | '.join(cells)} |"


def _shared(family: Family) -> str:
    sampling = _recipe(family).sampling
    names = [name for name in family.samplers if name != "default"]
    cells = [
        f"`{family.name}`",
        f"`{family.default_method}`",
        f"{sampling.steps}, {sampling.guidance:g}",
        f"multiples of {family.pixel_multiple}",
        "no" if family.no_negative_prompt else "yes",
        ", ".join(f"`{name}`" for name in names),
    ]
    return f"| {' | '.join(cells)} |"


def _recipe(family: Family) -> Recipe:
    least = {
        "family": family.name,
        "base": family.standard_base,
        "concept": {"images": "dog.jpg", "class": "dog"},
        "output": {"dir": "runs/dog"},
    }
    return Recipe.model_validate(least)


if __name__ == "__main__":
    write_text(PAGE, page())
    print(PAGE)
