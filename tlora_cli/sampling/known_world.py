"""Photographs on a base that draws one world only: they are told before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.bundled import Bundle, bundle_of_base
from tlora_cli.foundation.plugins import resolve
from tlora_cli.methods import DEFAULT
from tlora_cli.photos.training_images import load_training_image


def strangers(base: str, paths: Sequence[Path]) -> Iterator[str]:
    """Yield a sentence for each picture that a bundle's base can't draw.

    Of other bases nothing is known, and a bundle's own pictures need no look.

    Args:
        base: base model, as a recipe names it.
        paths: pictures.

    Raises:
        UserError: if a picture can't be read.
    """
    bundle = world_of(base)
    if bundle is None:
        return
    assert bundle.recognizes  # `world_of` looks for it
    recognizes: Callable[[str, Tensor], bool] = resolve(bundle.recognizes)
    side = bundle.settings(base, DEFAULT)["train"]["resolution"]
    for path in paths:
        if bundle.owns(path):
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a small drawing is what it should be
            pixels = load_training_image(path, None, side).pixels
        if not recognizes(base, pixels):
            yield f"{path} is no drawing of {bundle.title}, and {base} draws nothing else"


def another_base(key: str) -> str:
    """Return the advice for photographs on a base that knows only drawings.

    Args:
        key: what names the base: a recipe's key, or an option.
    """
    standard = next(iter(FAMILIES.values())).standard_base
    return f"for photographs take another {key}, such as {standard} on a CUDA card"


def world_of(base: str) -> Bundle | None:
    """Return the bundle that is all a base knows, or None."""
    bundle = bundle_of_base(base)
    return bundle if bundle and bundle.recognizes else None
