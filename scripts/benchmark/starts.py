"""The start of T-LoRA for all layers of a base, against full decompositions of as many matrices."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import torch
from torch import nn

from tlora_cli.families import FAMILIES
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.methods import METHODS, StartSettings


def shapes_of(family: str, config: str | None = None) -> Counter[tuple[int, int]]:
    """Return (out, in) of the adapted layers, and how many there are of each."""
    layers = FAMILIES[family].target_layers(meta_denoiser(family, config)).values()
    return Counter((layer.out_features, layer.in_features) for layer in layers)


def measure_start(
    family: str, rank: int, config: str | None = None, samples: int = 2
) -> dict[str, Any]:
    """Time the start of all layers, and full decompositions of a few, scaled to all.

    Args:
        family: of the base.
        rank: R.
        config: folder of the base, if it is not the standard one.
        samples: decompositions of each shape; the quickest counts.

    Returns:
        Seconds and processor seconds of both, and the quotient of the processor's.
    """
    shapes = shapes_of(family, config)
    layers = [_shape_only(*shape) for shape, count in shapes.items() for _ in range(count)]
    chance = torch.Generator().manual_seed(0)
    wall, processor = time.perf_counter(), time.process_time()
    made = list(METHODS["tlora"].starts(layers, StartSettings(rank), chance))
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    assert len(made) == len(layers)
    del made
    full_wall = full_processor = 0.0
    for shape, count in shapes.items():
        times = [_decomposition(*shape) for _ in range(samples)]
        full_wall += count * min(t[0] for t in times)
        full_processor += count * min(t[1] for t in times)
    return {
        "layers": len(layers),
        "rank": rank,
        "seconds": wall,
        "cpu": processor,
        "full_seconds": full_wall,
        "full_cpu": full_processor,
        "times_faster": full_processor / processor,
    }


def _shape_only(out_features: int, in_features: int) -> nn.Linear:
    """Return what a start reads of a layer, without its memory."""
    layer = nn.Linear(1, 1)
    layer.out_features, layer.in_features = out_features, in_features
    return layer


def _decomposition(rows: int, columns: int) -> tuple[float, float]:
    matrix = torch.randn(rows, columns)
    wall, processor = time.perf_counter(), time.process_time()
    torch.linalg.svd(matrix, full_matrices=True)
    return time.perf_counter() - wall, time.process_time() - processor
