"""A method's own facts: its formula, its start, and all that others need to know.

A method is one file with one `Method`, and a line in `METHODS`. Nothing here imports torch: recipes
take names, help, published settings and limits from the methods, and mistakes in a recipe must be
told at once. So a method's file imports torch inside its functions, where it needs it at all; the
formulas are mostly plain arithmetic on the tensors that they are given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from tlora_cli.formulas.products import Products

Tensors: TypeAlias = "Mapping[str, Tensor]"
Reach = Literal["attention", "text_keys_values", "matrices", "everything", "nothing"]
Side = Literal["in_features", "out_features"]


@dataclass(frozen=True)
class StartSettings:
    """A recipe's settings of a layer's start; each method reads what concerns it.

    Attributes:
        rank: R, of the low-rank methods.
        init: which singular triplets T-LoRA starts from; a name of `tlora.STARTS`.
        init_std: standard deviation of its random matrix; a name of `tlora.INIT_STD`.
        blocks: number of diagonal blocks, of OFT and GSOFT.
    """

    rank: int = 64
    init: str = "random_last"
    init_std: str = "1/r"
    blocks: int = 32


@dataclass(frozen=True)
class Start:
    """The tensors of one layer before training, by their names in checkpoints.

    Attributes:
        trained: parameters, fp32.
        frozen: constants, which a run saves once, beside its checkpoints.
        running: what training moves on without a gradient, saved in each checkpoint.
        derived: functions of the base's weights, which are not saved.
        rate: learning rate of the parameters, relative to the recipe's.
    """

    trained: Tensors
    frozen: Tensors = field(default_factory=dict)
    running: Tensors = field(default_factory=dict)
    derived: Tensors = field(default_factory=dict)
    rate: float = 1.0


@dataclass(frozen=True)
class LowRank:
    """The formula of an update beside a layer, y = W x + up (mask * (down x)).

    Attributes:
        combine: a layer's tensors -> the update as products. The tensors may have more dimensions
            in front, for many layers of one shape at once.
        parts: names of the tensors that it takes, in order.
        copies: how many blocks of R rows `down` has; the mask is repeated that many times.
    """

    combine: Callable[..., Products]
    parts: tuple[str, ...]
    copies: int = 1


Weights: TypeAlias = Callable[[Tensors, Tensors], "dict[str, Tensor]"]
"""(a module's own parameters, the method's tensors) -> the parameters to run with, by name. All
fp32; before training they equal the module's own."""


@dataclass(frozen=True)
class Method:
    """A method; what it does to a layer is `update` or `weights`.

    Attributes:
        name: in recipes and adapter files.
        about: what stands behind the name in the recipe's help; may be empty.
        starts: (modules, settings, CPU generator) -> each module's start, one by one.
        update: formula of an update of low rank.
        weights: formula of other weights to run a module on, for what is no small product of
            factors. There is no rank axis then, so no schedule masks it.
        masked: whether the rank follows a schedule.
        masked_form: name of the method that does the same under a schedule.
        init: where it starts, for `update`; None if the recipe's `init` says it or it is random.
        reads_init: whether the recipe's `init` and `init_std` concern it.
        divides: sides of a layer that its diagonal blocks must divide; empty without blocks.
        reach: which modules it changes; see `injection.targets.chosen_modules`.
        word: whether the placeholder's embedding is learned, too.
        penalty: layers -> a loss added to the diffusion loss.
        after_step: (layers, steps done, steps of the run), while the gradients are still there.
        switches: names of trained tensors that `after_step` sets to zero to switch components off;
            where they are zero, their average is zero, too.
        steps: family -> published optimizer steps.
        settings: of a recipe, as published, where they differ from LoRA's.
        compared: whether it is here to compare with, in the recipe's help.
    """

    name: str
    about: str
    starts: Callable[[Sequence[Any], StartSettings, torch.Generator], Iterator[Start]]
    update: LowRank | None = None
    weights: Weights | None = None
    masked: bool = False
    masked_form: str | None = None
    init: str | None = None
    reads_init: bool = False
    divides: tuple[Side, ...] = ()
    reach: Reach = "attention"
    word: bool = False
    penalty: Callable[[Sequence[Any]], Tensor] | None = None
    after_step: Callable[[Sequence[Any], int, int], object] | None = None
    switches: tuple[str, ...] = ()
    steps: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    compared: bool = True

    @property
    def low_rank(self) -> bool:
        """Whether it has ranks. If not it needs the base's weights whole, so no quantized base."""
        return self.update is not None

    @property
    def no_convolutions(self) -> str | None:
        """Why it can't change a convolution; None if it can."""
        if not self.divides:
            return None
        return f"{self.name} turns the two sides of a matrix, which a convolution doesn't have"

    @property
    def size(self) -> Literal["rank", "blocks", "none"]:
        """The setting that says how large it is."""
        return "rank" if self.low_rank else "blocks" if self.divides else "none"

    @property
    def reads(self) -> frozenset[str]:
        """The settings of the recipe's `adapter` section that concern it and not all methods."""
        told = {
            "rank": self.low_rank,
            "min_rank": self.masked,
            "schedule": self.masked,
            "blocks": bool(self.divides),
            "init": self.reads_init,
            "init_std": self.reads_init,
        }
        return frozenset(key for key, concerns in told.items() if concerns)

    def start_name(self, init: str | None) -> str | None:
        """Return which triplets it starts from, if a recipe or a file says `init`."""
        return init if self.reads_init else self.init


def by_family(**steps: int) -> Mapping[str, int]:
    """Return published steps by family."""
    return steps
