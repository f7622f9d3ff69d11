"""OFT: a block-diagonal rotation of the weights, in two forms.

    oft:     W' = R W,   R_i = (I + S_i)(I - S_i)^-1
    oft_v2:  W' = W R^T, R_i by a Neumann series

R = blockdiag(R_1 ... R_b), S_i skew-symmetric and zero at the start. Qiu et al. 2023, "Controlling
Text-to-Image Diffusion by Orthogonal Finetuning", on the output side as the paper's authors ran it;
and OFTv2 (Qiu et al. 2025) on the input side, the form of today's PEFT. Exact rotations leave the
singular values of W as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tlora_cli.methods.rotations import cayley, cayley_neumann, skew_from_entries, turn_rows
from tlora_cli.methods.spec import Method, Start, StartSettings, Tensors, by_family

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def rotated_outputs(own: Tensors, learned: Tensors) -> dict[str, Tensor]:
    """Return R W."""
    weight, entries = own["weight"], learned["entries"]
    rotations = cayley(skew_from_entries(entries, len(weight) // len(entries)))
    return {"weight": turn_rows(rotations, weight)}


def rotated_inputs(own: Tensors, learned: Tensors) -> dict[str, Tensor]:
    """Return W R^T."""
    weight, entries = own["weight"], learned["entries"]
    rotations = cayley_neumann(skew_from_entries(entries, weight.shape[1] // len(entries)))
    return {"weight": turn_rows(rotations, weight.T).T}


def output_starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield zeros for the entries above the diagonals of S: blocks of the rows of W."""
    return (_start(layer.out_features, settings.blocks) for layer in layers)


def input_starts(
    layers: Sequence[Any], settings: StartSettings, generator: torch.Generator
) -> Iterator[Start]:
    """Yield zeros for the entries above the diagonals of S: blocks of the columns of W."""
    return (_start(layer.in_features, settings.blocks) for layer in layers)


def _start(features: int, blocks: int) -> Start:
    import torch

    size = features // blocks
    return Start({"entries": torch.zeros(blocks, size * (size - 1) // 2)})


OFT = Method(
    name="oft",
    about="as the paper ran it",
    starts=output_starts,
    weights=rotated_outputs,
    divides=("out_features",),
    steps=by_family(sdxl=800),
)
OFT_V2 = replace(
    OFT,
    name="oft_v2",
    about="as PEFT has it today",
    starts=input_starts,
    weights=rotated_inputs,
    divides=("in_features",),
)
