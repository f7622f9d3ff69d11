"""The change that an adapter makes in one module, in three forms.

`LowRankUpdate` adds an update of low rank to what a layer gives, `OtherWeights` has a module run on
other weights, `LearnedWord` gives a word vectors of its own in a text encoder. What a method does
(its formula) is in `tlora_cli.methods`; here are the tensors of one module, and where they act.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tlora_cli.formats.weights import AdapterWeights
from tlora_cli.formulas.convolution import Convolution, as_matrices
from tlora_cli.formulas.masked_low_rank import masked_low_rank
from tlora_cli.formulas.products import Products, delta_form
from tlora_cli.foundation.devices import HostCopies
from tlora_cli.foundation.errors import UserError
from tlora_cli.injection.swapped_weights import swap_weights
from tlora_cli.methods import LowRank, Method, Start, Weights
from tlora_cli.methods.textual_inversion import with_word

Put = Callable[[Tensor, Tensor], object]
"""Writes new values over a parameter, or over a part of it."""
MadeT = TypeVar("MadeT")


class Host(Protocol):
    """The adapter, as far as its changes know it."""

    scale: float

    def kept(self, key: Any, make: Callable[[], MadeT]) -> MadeT:
        """Return what `make` makes; made once only while the parameters don't change."""

    def update_hook(self, name: str, update: LowRankUpdate) -> Callable[..., Tensor]:
        """Return a layer's forward hook that adds its update."""


class Change(nn.Module, ABC):
    """The change that an adapter makes in one module.

    Attributes:
        rate: learning rate of its parameters, relative to the recipe's.
        copies: how many blocks of R rows its pair of factors has; 1 where it has none.
        constants: names of the tensors that are as they were at its start.
    """

    rate: float = 1.0
    copies: int = 1
    constants: Collection[str] = ()

    @abstractmethod
    def hook(self, name: str, module: nn.Module, adapter: Host) -> list[RemovableHandle]:
        """Let the module run changed, and return the hooks; removing them ends it."""

    @abstractmethod
    def merge(self, own: Mapping[str, Tensor], put: Put, rank: int | None = None) -> None:
        """Put the change into the module's weights.

        Args:
            own: the module's own parameters, fp32.
            put: writes them.
            rank: how many of the first components, where there are any; None: all.
        """

    @abstractmethod
    def store(self, name: str, file: AdapterWeights, copies: HostCopies) -> None:
        """Put its tensors into what an adapter file holds of the module `name`.

        Args:
            name: of the module.
            file: that gets them, to be read when the copies are whole.
            copies: bring them to the host.
        """

    def numbers_in_file(self) -> int:
        """Return how many numbers `store` puts into a file."""
        return sum(tensor.numel() for tensor in self.parameters())

    def _state(self, copies: HostCopies) -> dict[str, Tensor]:
        return {key: copies.begin(tensor) for key, tensor in self.state_dict().items()}

    def _hold(self, start: Start) -> None:
        """Take the tensors of a start as parameters and buffers; dots in names make submodules."""
        for name, tensor in start.trained.items():
            owner, own_name = self._owner(name)
            owner.register_parameter(own_name, nn.Parameter(tensor))
        self.constants = tuple(start.frozen)
        kept = {**start.frozen, **start.running}
        for tensors, saved in ((kept, True), (start.derived, False)):
            for name, tensor in tensors.items():
                owner, own_name = self._owner(name)
                owner.register_buffer(own_name, tensor, persistent=saved)

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        owner: nn.Module = self
        *path, own_name = name.split(".")
        for part in path:
            if part not in owner._modules:
                owner.add_module(part, nn.Module())
            owner = owner.get_submodule(part)
        return owner, own_name


class LowRankUpdate(Change):
    """The update of a layer, y = W x + up (mask * (down x)); a convolution's W is flattened.

    Args:
        formula: of the method.
        start: its tensors.
        rank: R, the number of components that a schedule can switch.
        convolution: of the layer; None for a linear one.
    """

    def __init__(
        self, formula: LowRank, start: Start, rank: int, convolution: Convolution | None = None
    ) -> None:
        super().__init__()
        self.formula, self.rank, self.copies = formula, rank, formula.copies
        self.convolution = convolution
        self._hold(start)

    def tensors(self) -> list[Tensor]:
        """Return what the formula takes, in order."""
        return [getattr(self, name) for name in self.formula.parts]

    def factors(self) -> tuple[Tensor, Tensor]:
        """Return down (copies * R, in) and up (out, copies * R), fp32 and differentiable."""
        return delta_form(self.formula.combine(*self.tensors()))

    def added(self, x: Tensor, down: Tensor, up: Tensor, mask: Tensor | None) -> Tensor:
        """Return what such factors add to the layer's output under a mask (B, w)."""
        add = masked_low_rank if self.convolution is None else self.convolution.masked_low_rank
        return add(x, down, up, mask)

    def hook(self, name: str, module: nn.Module, adapter: Host) -> list[RemovableHandle]:
        """Add the update to what the layer gives."""
        return [module.register_forward_hook(adapter.update_hook(name, self))]

    def merge(self, own: Mapping[str, Tensor], put: Put, rank: int | None = None) -> None:
        """Add the product of the factors to the weights."""
        down, up = (factor.float() for factor in self.factors())
        kept = torch.arange(self.rank if rank is None else min(rank, self.rank), device=down.device)
        chosen = torch.cat([kept + copy * self.rank for copy in range(self.copies)])
        weight = own["weight"]
        merged = torch.addmm(weight.flatten(1), up[:, chosen], down[chosen])
        put(weight, merged.view_as(weight))

    def store(self, name: str, file: AdapterWeights, copies: HostCopies) -> None:
        """Store the pair of factors, whatever they are made of."""
        down, up = self.factors()
        if self.convolution is not None:
            down, up = self.convolution.stored(down, up)
        file.layers[name] = copies.begin(down), copies.begin(up)

    def numbers_in_file(self) -> int:
        """Return the size of the pair."""
        return _numbers_in_pair(self.formula, *(tensor.shape for tensor in self.tensors()))


@functools.lru_cache(maxsize=1024)
def _numbers_in_pair(formula: LowRank, *shapes: torch.Size) -> int:
    """Return the size of a pair of factors; a denoiser has hundreds of layers of few shapes."""
    tensors = (torch.empty(shape, device="meta") for shape in shapes)
    return sum(factor.numel() for factor in delta_form(formula.combine(*tensors)))


class OtherWeights(Change):
    """Other weights for one module while it runs: y = W' x, W' a function of W.

    Args:
        formula: of the method.
        start: its tensors.
    """

    def __init__(self, formula: Weights, start: Start) -> None:
        super().__init__()
        self.formula, self.rate = formula, start.rate
        self._hold(start)

    def weights(self, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the parameters to run with, by name, differentiable.

        Args:
            own: the module's own parameters, fp32; equal to the result before training.
        """
        return self.formula(own, {**dict(self.named_parameters()), **dict(self.named_buffers())})

    def hook(self, name: str, module: nn.Module, adapter: Host) -> list[RemovableHandle]:
        """Swap the weights for the length of a call; built in fp32, used in the base's dtype."""

        def make(own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
            scale = adapter.scale
            return adapter.kept((name, scale), lambda: self._scaled(own, scale))

        return swap_weights(module, make)

    def _scaled(self, own: Mapping[str, Tensor], scale: float) -> Mapping[str, Tensor]:
        whole = {part: tensor.detach().float() for part, tensor in own.items()}
        made = self.weights(whole)
        if scale != 1.0:
            made = {part: torch.lerp(whole[part], w, scale) for part, w in made.items()}
        return {part: tensor.to(own[part].dtype) for part, tensor in made.items()}

    def merge(self, own: Mapping[str, Tensor], put: Put, rank: int | None = None) -> None:
        """Write the weights that it runs on."""
        for name, merged in self.weights(own).items():
            put(own[name], merged)

    def store(self, name: str, file: AdapterWeights, copies: HostCopies) -> None:
        """Store the method's own parameters."""
        file.parts[name] = self._state(copies)


class LearnedWord(Change):
    """Vectors in place of a word's token embeddings, one for each of its tokens.

    Args:
        ids: the word's token numbers.
        start: (D,) where each vector begins, such as the mean embedding of the class's tokens.
        rate: learning rate, relative to the recipe's.
    """

    ids: Tensor

    def __init__(self, ids: Sequence[int], start: Tensor, rate: float = 1.0) -> None:
        super().__init__()
        self.rate = rate
        self.vectors = nn.Parameter(start.detach().float().repeat(len(ids), 1))
        self.register_buffer("ids", torch.tensor(ids), persistent=False)

    def place(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        """Return embeddings (B, L, D) of tokens (B, L) with the word's replaced."""
        return with_word(tokens, embedded, self.ids, self.vectors)

    def hook(self, name: str, module: nn.Module, adapter: Host) -> list[RemovableHandle]:
        """Let token embeddings give the word's vectors for its tokens; a word has no strength."""
        return [self.hook_embeddings(module)]

    def hook_embeddings(self, module: nn.Module) -> RemovableHandle:
        """Let token embeddings give the word's vectors, whether or not there is an adapter."""
        return module.register_forward_hook(lambda _, inputs, output: self.place(inputs[0], output))

    def merge(self, own: Mapping[str, Tensor], put: Put, rank: int | None = None) -> None:
        """Write the vectors over those of the word's tokens."""
        table = own["weight"]
        for token, vector in zip(self.ids.tolist(), self.vectors, strict=True):
            put(table[token], vector.to(table))

    def store(self, name: str, file: AdapterWeights, copies: HostCopies) -> None:
        """Store the vectors."""
        file.words[name] = self._state(copies)


def new_change(method: Method, start: Start, rank: int, module: Any = None) -> Change:
    """Return a method's change of one module; a convolution must be given."""
    if method.weights is not None:
        return OtherWeights(method.weights, start)
    assert method.update is not None, f"{method.name} says neither an update nor weights"
    return LowRankUpdate(method.update, start, rank, convolution_of(module))


def fixed_pair(down: Tensor, up: Tensor, copies: int, module: Any = None) -> LowRankUpdate:
    """Return an update by a pair of factors as read from a file, which is not trained.

    Args:
        down: (copies * R, in); (copies * R, in, k, k) of a convolution.
        up: (out, copies * R); (out, copies * R, 1, 1) of a convolution.
        copies: how many blocks of R rows it has.
        module: the layer; a convolution must be given.
    """
    formula = LowRank(Products, parts=("down", "up"), copies=copies)
    down, up = as_matrices(down, up)
    start = Start({}, {"down": down, "up": up})
    return LowRankUpdate(formula, start, down.shape[0] // copies, convolution_of(module))


def convolution_of(module: Any) -> Convolution | None:
    """Return the geometry of a convolution; None for other modules.

    Raises:
        UserError: for a convolution whose weights are no one matrix, or that pads with others.
    """
    if not isinstance(module, nn.Conv2d):
        return None
    if module.groups != 1 or module.padding_mode != "zeros":
        raise UserError(
            f"a low-rank update is not defined for a convolution of {module.groups} groups that "
            f"pads with {module.padding_mode}",
            where="adapter.targets",
            do="leave it out of adapter.targets",
        )
    sides = (module.kernel_size, module.stride, module.padding, module.dilation)
    return Convolution(module.in_channels, *sides)  # type: ignore[arg-type]  # two of each
