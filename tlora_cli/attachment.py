"""Put an adapter on a denoiser without touching what belongs to the denoiser.

A forward pre-hook on the denoiser reads the timestep of each call and leaves the mask in the gate;
a forward hook on each target layer adds the masked update. The mask stays until the next call, so
it also holds in the backward pass and when checkpointed blocks run again.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlora_cli.adapters import METHODS, STARTS, Parametrization, StartSettings
from tlora_cli.errors import UserError
from tlora_cli.families import Family, denoiser_of, family_of
from tlora_cli.formats import tlora_file
from tlora_cli.formats.weights import AdapterInfo, AdapterWeights
from tlora_cli.gate import MaskGate
from tlora_cli.kernels import masked_low_rank
from tlora_cli.schedules import RankSchedule


class Adapter:
    """An adapter on a denoiser. Made by `attach` and `load_adapter`.

    Attributes:
        layers: layer name -> parametrization, in the denoiser's order.
        schedule: the rank schedule.
        scale: strength of the update; 1 is as trained, 0 the base model.
        info: where it comes from; written into the file.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        family: Family,
        layers: dict[str, Parametrization],
        schedule: RankSchedule,
        info: AdapterInfo,
        trainable: bool,
    ) -> None:
        self.denoiser = denoiser
        self.family = family
        self.layers = layers
        self.schedule = schedule
        self.info = info
        self.scale = 1.0
        self.gate = MaskGate(schedule, family.timestep_scale)
        self._cache: dict[Any, tuple[Tensor, Tensor]] | None = None if trainable else {}
        modules = dict(denoiser.named_modules())
        self._checkpointed = False
        self._unfrozen = [p for p in denoiser.parameters() if trainable and p.requires_grad]
        for parameter in self._unfrozen:
            parameter.requires_grad_(False)
        self._hooks = [denoiser.register_forward_pre_hook(self._on_call, with_kwargs=True)]
        for name, layer in layers.items():
            add_update = functools.partial(self._on_layer, name, layer)
            self._hooks.append(modules[name].register_forward_hook(add_update))

    # --- hooks --------------------------------------------------------------------------------

    def _on_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        position = self.family.timestep_position
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[position]
        sample = kwargs.get("hidden_states", kwargs.get("sample", args[0] if args else None))
        self.gate.set_timestep(timestep, sample.device if sample is not None else timestep.device)

    def _on_layer(
        self, name: str, layer: Parametrization, module: nn.Module, inputs: Any, output: Tensor
    ) -> Tensor:
        x = inputs[0]
        down, up = self._cast_factors(name, layer, x)
        mask = self.gate.mask(layer.copies, x.dtype)
        update = masked_low_rank(x, down, up, mask)
        return output + (update if self.scale == 1.0 else self.scale * update)

    def _cast_factors(self, name: str, layer: Parametrization, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the factors in the input's dtype; built in fp32 first, see `Ortho.factors`."""
        if self._cache is None or torch.is_grad_enabled():
            down, up = layer.factors()
            return down.to(x), up.to(x)
        key = (name, x.dtype, x.device)
        if key not in self._cache:
            down, up = layer.factors()
            self._cache[key] = (down.to(x), up.to(x))
        return self._cache[key]

    # --- public -------------------------------------------------------------------------------

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trainable tensors, fp32; none for an adapter loaded for sampling only."""
        for layer in self.layers.values():
            yield from layer.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """Return all tensors, trained and frozen, by `<layer>.<tensor>`."""
        return {
            f"{name}.{key}": tensor
            for name, layer in self.layers.items()
            for key, tensor in layer.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy tensors in place; the names must be exactly those of `state_dict`."""
        own = self.state_dict()
        if own.keys() != state.keys():
            raise ValueError("the adapter's state does not belong to this adapter")
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(state[key])

    def enable_gradient_checkpointing(self) -> None:
        """Recompute activations in the backward pass, each call under its own mask."""
        model: Any = self.denoiser
        model.enable_gradient_checkpointing(self.gate.checkpoint)
        self._checkpointed = True

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, the parameters don't change, so factors are built and cast once."""
        before = self._cache
        self._cache = {}
        try:
            yield
        finally:
            self._cache = before

    def weights(self) -> AdapterWeights:
        """Return the adapter as a file holds it."""
        layers = {}
        with torch.no_grad():
            for name, layer in self.layers.items():  # one layer at a time on the GPU
                down, up = layer.factors()
                layers[name] = (down, up) if down.is_meta else (down.cpu(), up.cpu())
        copies = next(iter(self.layers.values())).copies
        return AdapterWeights(layers, copies, self.schedule, self.family.name, self.info)

    def save(self, path: str | Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the adapter file, atomically; see `formats/tlora_file.py`.

        Raises:
            UserError: if the disk is full or can't be written.
        """
        tlora_file.write(
            Path(path), self.weights(), timestep_scale=self.family.timestep_scale, dtype=dtype
        )

    def remove(self) -> None:
        """Take the adapter off; the denoiser is as before, bit for bit."""
        for hook in self._hooks:
            hook.remove()
        for parameter in self._unfrozen:
            parameter.requires_grad_(True)
        if self._checkpointed:
            model: Any = self.denoiser
            model.disable_gradient_checkpointing()
        self._hooks, self._unfrozen, self._checkpointed = [], [], False


def default_schedule(method: str, rank: int, min_rank: int | None) -> RankSchedule:
    """Return a method's own schedule: linear for the masked ones, else always full."""
    if not METHODS[method].masked:
        return RankSchedule(rank, rank, kind="constant")
    try:
        return RankSchedule(rank, max(1, rank // 2) if min_rank is None else min_rank)
    except ValueError as error:
        raise UserError(str(error), do="choose min_rank between 1 and rank") from error


def check_rank(rank: int, layers: Mapping[str, nn.Linear]) -> None:
    """Raise a UserError if the rank is above the width of a layer."""
    for name, layer in layers.items():
        width = min(layer.in_features, layer.out_features)
        if rank > width:
            raise UserError(
                f"rank {rank} is above the width {width} of layer {name}",
                where="adapter.rank",
                do=f"choose a rank of at most {width}, or other adapter.targets",
            )


def _check_names(
    method: str, init: str, schedule: RankSchedule | None, min_rank: int | None
) -> None:
    if method not in METHODS:
        raise UserError(f"unknown method {method!r}", do=f"use one of {', '.join(METHODS)}")
    if init not in STARTS:
        raise UserError(f"unknown init {init!r}", do=f"use one of {', '.join(STARTS)}")
    if not METHODS[method].masked and (schedule is not None or min_rank is not None):
        raise UserError(
            f"{method} always uses its full rank and takes no min_rank or schedule",
            do="use vanilla_tlora or tlora for a rank that follows the timestep",
        )


def attach(
    denoiser: Any,
    method: str = "tlora",
    rank: int = 64,
    min_rank: int | None = None,
    *,
    schedule: RankSchedule | None = None,
    init: str = "random_last",
    init_std: str = "1/r",
    seed: int = 0,
    targets: str | None = None,
    info: AdapterInfo | None = None,
) -> Adapter:
    """Put a new, trainable adapter on a denoiser (or on the denoiser of a pipeline).

    The denoiser's answers do not change until the adapter is trained. The base model's parameters
    are frozen; the adapter's are fp32 whatever the base's dtype.

    Args:
        denoiser: an SDXL UNet2DConditionModel, a FluxTransformer2DModel, or a pipeline.
        method: a name of `METHODS`: lora, vanilla_tlora, ortho_lora, tlora.
        rank: full rank R.
        min_rank: rank at the noisiest timestep; default R // 2. Only for masked methods.
        schedule: any other schedule of the same rank, for masked methods.
        init: start of the ortho methods: {random, weights}_{principal, middle, last}.
        init_std: standard deviation of a random start, `1/r` or `1/sqrt(r)`.
        seed: of the start.
        targets: regular expression for full layer names; default: the family's attention
            projections.
        info: where it comes from; `method`, `init` and `seed` are filled in.

    Raises:
        UserError: if nothing matches, the rank is above a layer's width, or a name is unknown.
    """
    family, model = family_of(denoiser), denoiser_of(denoiser)
    _check_names(method, init, schedule, min_rank)
    layers = family.target_layers(model, targets)
    check_rank(rank, layers)
    if schedule is None:
        schedule = default_schedule(method, rank, min_rank)
    elif schedule.rank != rank:
        raise UserError(f"the schedule has rank {schedule.rank}, the adapter {rank}")
    generator = torch.Generator().manual_seed(seed)
    start = StartSettings(rank, init, init_std)
    made = {
        name: METHODS[method].create(layer, start, generator).to(layer.weight.device)
        for name, layer in layers.items()
    }
    filled = dataclasses.replace(info or AdapterInfo(), method=method, init=init, seed=seed)
    return Adapter(model, family, made, schedule, filled, trainable=True)
