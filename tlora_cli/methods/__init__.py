"""Parametrizations, and the methods that choose one, its layers and a rank schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tlora_cli.methods.adalora import AdaLoRA, allocate, orthogonality
from tlora_cli.methods.base import Parametrization, Reweighting, delta_form
from tlora_cli.methods.fixed import Fixed
from tlora_cli.methods.full import Full
from tlora_cli.methods.gsoft import GSOFT
from tlora_cli.methods.low_rank import LowRank
from tlora_cli.methods.oft import OFT, OFTv2
from tlora_cli.methods.ortho import Ortho
from tlora_cli.methods.pissa import PiSSA
from tlora_cli.methods.starts import STARTS, draw_starts
from tlora_cli.methods.svdiff import SVDiff, VectorShift
from tlora_cli.methods.word import WordVectors

__all__ = [
    "INIT_STD",
    "METHODS",
    "STARTS",
    "Change",
    "Fixed",
    "LowRank",
    "Method",
    "Ortho",
    "Parametrization",
    "Reweighting",
    "StartSettings",
    "WordVectors",
    "delta_form",
    "rebuild",
]

Change = Parametrization | Reweighting | WordVectors
"""The module that an adapter has for each of its layers."""

INIT_STD: dict[str, Callable[[int], float]] = {
    "1/r": lambda rank: 1 / rank,
    "1/sqrt(r)": lambda rank: 1 / math.sqrt(rank),
}
"""Standard deviation of a random start, from the rank."""


@dataclass(frozen=True)
class StartSettings:
    """Settings of how a layer's parameters begin; each method reads what concerns it.

    Attributes:
        rank: R, of the low-rank methods.
        init, init_std: of the ortho family.
        blocks: number of diagonal blocks, of OFT and GSOFT.
    """

    rank: int = 64
    init: str = "random_last"
    init_std: str = "1/r"
    blocks: int = 32


Create = Callable[[Any, StartSettings, torch.Generator], Change]
CreateAll = Callable[[Sequence[Any], StartSettings, torch.Generator], Iterator[Change]]


@dataclass(frozen=True)
class Method:
    """A method: what it does to a layer, to which layers, and what else training needs.

    Attributes:
        create_all: (modules, settings, generator) -> each module's change.
        size: which setting says how large it is.
        masked: whether the rank follows a schedule.
        reach: which modules; see `selection.chosen_modules`.
        word: whether the placeholder's embedding is learned, too.
        penalty: layers -> a loss added to the diffusion loss.
        after_step: (layers, steps done, steps of the run), while the gradients are still there.
    """

    create_all: CreateAll
    size: Literal["rank", "blocks", "none"] = "rank"
    masked: bool = False
    reach: Literal["attention", "text_keys_values", "matrices", "everything", "nothing"] = (
        "attention"
    )
    word: bool = False
    penalty: Callable[[Sequence[Any]], Tensor] | None = None
    after_step: Callable[[Sequence[Any], int, int], object] | None = None

    def create(self, module: Any, start: StartSettings, chance: torch.Generator) -> Change:
        """Return the change of a single module."""
        [change] = self.create_all([module], start, chance)
        return change


def _each(create: Create) -> CreateAll:
    """Return what creates the changes of modules one by one."""
    return lambda modules, start, chance: (create(module, start, chance) for module in modules)


def _low_rank(layer: nn.Linear, start: StartSettings, chance: torch.Generator) -> Change:
    return LowRank.start(layer, start.rank, chance)


def _ortho(
    layers: Sequence[nn.Linear], start: StartSettings, chance: torch.Generator
) -> Iterator[Change]:
    std = INIT_STD[start.init_std](start.rank)
    return map(Ortho, draw_starts(layers, start.rank, start.init, chance, std))


def _pissa(layer: nn.Linear, start: StartSettings, chance: torch.Generator) -> Change:
    [triplets] = draw_starts([layer], start.rank, "weights_principal", chance, 1.0)
    return PiSSA.start(triplets)


def _adalora(layer: nn.Linear, start: StartSettings, chance: torch.Generator) -> Change:
    return AdaLoRA.start(layer, start.rank, chance)


def _gsoft(double: bool) -> Create:
    return lambda layer, start, _: GSOFT(
        layer.out_features, layer.in_features, start.blocks, double
    )


def _svdiff(module: nn.Module, start: StartSettings, chance: torch.Generator) -> Change:
    weight: Tensor = module.weight  # type: ignore[assignment]
    return VectorShift(weight) if weight.dim() == 1 else SVDiff(weight)


def _everything(module: nn.Module, start: StartSettings, chance: torch.Generator) -> Change:
    return Full(dict(module.named_parameters(recurse=False)))


def _weight_alone(layer: nn.Linear, start: StartSettings, chance: torch.Generator) -> Change:
    return Full({"weight": layer.weight})


METHODS: dict[str, Method] = {
    "lora": Method(_each(_low_rank)),
    "vanilla_tlora": Method(_each(_low_rank), masked=True),
    "ortho_lora": Method(_ortho),
    "tlora": Method(_ortho, masked=True),
    "pissa": Method(_each(_pissa)),
    "adalora": Method(_each(_adalora), penalty=orthogonality, after_step=allocate),
    "oft": Method(_each(lambda m, s, _: OFT(m.out_features, s.blocks)), size="blocks"),
    "oft_v2": Method(_each(lambda m, s, _: OFTv2(m.in_features, s.blocks)), size="blocks"),
    "gsoft": Method(_each(_gsoft(double=False)), size="blocks"),
    "gsoft_double": Method(_each(_gsoft(double=True)), size="blocks"),
    "svdiff": Method(_each(_svdiff), size="none", reach="matrices"),
    "dreambooth": Method(_each(_weight_alone), size="none"),
    "dreambooth_full": Method(_each(_everything), size="none", reach="everything"),
    "custom_diffusion": Method(
        _each(_weight_alone), size="none", reach="text_keys_values", word=True
    ),
    "textual_inversion": Method(_each(_weight_alone), size="none", reach="nothing", word=True),
}
"""Name -> method (T-LoRA, tables 1 and 2, and what they build on)."""


def rebuild(down: Tensor, up: Tensor, copies: int) -> Parametrization:
    """Return trainable parameters that give a saved pair of factors."""
    return Ortho.from_factors(down, up) if copies == Ortho.copies else LowRank(down, up)
