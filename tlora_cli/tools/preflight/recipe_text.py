"""The file of a new recipe, with notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tlora_cli.photos.finding import AUTO
from tlora_cli.photos.framing import CENTER
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.named import PAPER, PHOTO


def scalar(value: Any) -> str:
    """Return a value as YAML in one line."""
    text: str = yaml.safe_dump([value], default_flow_style=True, width=10**6, allow_unicode=True)
    return text.strip()[1:-1]


def recipe_text(recipe: Recipe, saved: Mapping[str, Any]) -> str:
    """Return the file of a new recipe, with a word on each of its lines.

    Args:
        recipe: the recipe.
        saved: settings of `train` that save memory.
    """
    train, preview = recipe.train, recipe.train.preview
    assert preview is not None
    savings = {"resolution": train.resolution, **saved}
    if train.crop != CENTER:
        savings = {"crop": train.crop, **savings}
    lines = "\n".join(f"  {key}: {scalar(value)}{_note(key)}" for key, value in savings.items())
    prompts = "\n".join(f"      - {scalar(prompt)}" for prompt in preview.prompts)
    concept = recipe.concept
    return f"""\
# Made by tlora. `tlora recipe schema` describes every key, `tlora recipe show` prints what runs.

recipe: {recipe.recipe}   # {_RECIPE_NOTES[recipe.recipe]}
family: {recipe.family}
base: {scalar(recipe.base.model)}

concept:
  images: {scalar(concept.images)}   # paths start at the current folder
{_mask_line(recipe)}
  class: {scalar(concept.class_name)}   # a common word for what it is
  placeholder: {scalar(concept.placeholder)}   # a rare word: with the class it names this very one

adapter:
  method: {recipe.adapter.method}   # fewer ranks at noisy timesteps: poses and places stay free
  rank: {recipe.adapter.rank}   # less makes a smaller file and keeps less detail

train:
  steps: {train.steps}   # if the last previews copy the picture, take fewer
{_select_line(train.select)}{lines}
  checkpoint: {{every: {train.checkpoint.every}, keep: {train.checkpoint.keep}}}
  preview:
    every: {preview.every}
    prompts:   # V* is the concept; ask for what the picture does not show
{prompts}

output:
  dir: {scalar(recipe.output.dir)}
"""


_RECIPE_NOTES = {
    PHOTO: "the subject on many places; paper: as published, on the picture alone",
    PAPER: "as published; photo: the subject is found, cut out and put on many places",
}
_MASK_LINES = {
    PHOTO: "  # masks: mask.png   # of the picture's size, white on the subject; else it is found",
    PAPER: "  # masks: auto   # learn only the subject, found by itself; or a picture, white there",
}


def _select_line(select: str) -> str:
    if select == "last":
        return ""
    return f"  select: {select}   # checkpoints are scored, and the best becomes the result\n"


def _mask_line(recipe: Recipe) -> str:
    masks = recipe.concept.masks
    if masks is None or (masks == AUTO and recipe.recipe == PHOTO):
        return _MASK_LINES[recipe.recipe]
    found = "found by itself" if masks == AUTO else "of the picture's size, white on the subject"
    return f"  masks: {scalar(masks)}   # {found}"


def _note(key: str) -> str:
    notes = {
        "memory": "   # what a card of this size needs; the plan: tlora validate",
        "gradient_checkpointing": "   # less memory, about 1.5 times the work",
        "quantization": "   # of the base: less memory, somewhat slower",
        "crop": "   # the photo keeps its shape; center: its middle square, as published",
        "resolution": "   # side in pixels of the training square, or of one of as many pixels",
    }
    return notes.get(key, "")
