"""The names that Black Forest Labs give the layers of their transformers."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

Blocks = tuple[str, str, Mapping[str, tuple[str, ...]]]
"""Blocks of the original model, of diffusers, and name in the one -> layers in the other."""


def names_of_layers(
    blocks: Collection[Blocks], outside: Mapping[str, str], layer_names: Collection[str]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield the original model's names with underscores, and which layers each means.

    Args:
        blocks: of the family.
        outside: of what stands outside of blocks, name -> layer.
        layer_names: the transformer's layers, in diffusers' names.
    """
    for theirs, ours, table in blocks:
        numbers = {name.split(".")[1] for name in layer_names if name.startswith(f"{ours}.")}
        for number in numbers:
            for alias, layers in table.items():
                full = tuple(f"{ours}.{number}.{layer}" for layer in layers)
                yield f"{theirs}_{number}_{alias}", full
    for alias, layer in outside.items():
        yield alias, (layer,)
