"""Put an adapter on a denoiser without touching what belongs to the denoiser.

A forward pre-hook on the denoiser reads the timestep of each call, and builds and masks the factors
of all layers; hooks on each target module let it run changed (`changes.py`). Mask and factors stay
until the next call, so they also hold in the backward pass and when checkpointed blocks run again.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tlora_cli.families import Family
from tlora_cli.families.wrapping import modules_of
from tlora_cli.formats import tlora_file
from tlora_cli.formats.weights import AdapterInfo, AdapterWeights
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.devices import HostCopies
from tlora_cli.foundation.errors import UserError
from tlora_cli.injection.batched_factors import BatchedUpdates
from tlora_cli.injection.call_state import CallState
from tlora_cli.injection.changes import Change, LearnedWord, LowRankUpdate, MadeT
from tlora_cli.injection.folded_weights import Folding, can_fold
from tlora_cli.injection.layer_groups import UpdateHook, autocast_dtype
from tlora_cli.injection.placement import Placement
from tlora_cli.injection.summary import summary_of
from tlora_cli.methods import METHODS, PLAIN, Method

_NO_SCHEDULE = RankSchedule(1, 1, kind="constant")
"""The schedule that a call is given where nothing is ever masked."""


class Adapter:
    """An adapter on a denoiser. Made by `attach` and `load_adapter`.

    Attributes:
        layers: layer name -> what is changed there, in the denoiser's order.
        schedule: the rank schedule; None for methods without ranks.
        scale: strength of the update; 1 is as trained, 0 the base model.
        info: where it comes from; written into the file.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        family: Family,
        layers: dict[str, Change],
        schedule: RankSchedule | None,
        info: AdapterInfo,
        trainable: bool,
        blocks: int | None = None,
        encoders: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.blocks = blocks
        self.denoiser = denoiser
        self.family = family
        self.layers = layers
        self.schedule = schedule
        self.info = info
        self.scale = 1.0
        self._updates = BatchedUpdates(family.shared_input, self._update_alone)
        self.call = CallState(schedule or _NO_SCHEDULE, family.timesteps, self._updates.install)
        self._cache: dict[Any, Any] | None = None if trainable else {}
        self._folding: Folding | None = None
        self._checkpointed = False
        self._learned = True, True
        self._unfrozen = [p for p in denoiser.parameters() if trainable and p.requires_grad]
        for parameter in self._unfrozen:
            parameter.requires_grad_(False)
        modules = {**modules_of(denoiser), **(encoders or {})}
        self._placement = Placement(modules, layers)
        _forget_compiled()
        self._hooks = [denoiser.register_forward_pre_hook(self._on_call, with_kwargs=True)]
        for name, change in layers.items():
            self._hooks += change.hook(name, modules[name], self)

    # --- hooks --------------------------------------------------------------------------------

    @torch.compiler.disable  # type: ignore[untyped-decorator]  # compiled code starts after it
    def _on_call(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._placement.check()
        timestep = self.family.timestep_input.of(args, kwargs)
        sample = self.family.latent_input.of(args, kwargs)
        device = sample.device if sample is not None else timestep.device
        masked = self.schedule is not None and not self.schedule.always_full
        if masked and (why := self.family.refused_call(kwargs)):
            raise UserError(why)
        self.call.set_timestep(timestep, device)
        if self._updates.stacks and self._learned[1]:
            autocast = autocast_dtype(device.type)
            dtype = autocast or (torch.float32 if sample is None else sample.dtype)
            built = self.kept((dtype, self.scale), lambda: self._updates.build(dtype, self.scale))
            masks = functools.partial(self.call.mask, dtype=dtype)
            if self._folding is not None:
                # A checkpointed block is recomputed later, perhaps after another call.
                later = self._checkpointed and torch.is_grad_enabled()
                if autocast is None and not later and self._folding.fold(built, masks):
                    self.call.keep(None)
                    return
                self._folding.unfold()
            self.call.keep(self._updates.for_call(built, masks, autocast is not None))

    def kept(self, key: Any, make: Callable[[], MadeT]) -> MadeT:
        """Return what `make` makes of the parameters; once only while these don't change."""
        if self._cache is None or torch.is_grad_enabled():
            return make()
        if key not in self._cache:
            self._cache[key] = make()
        found: MadeT = self._cache[key]
        return found

    def update_hook(self, name: str, update: LowRankUpdate) -> UpdateHook:
        """Return a layer's forward hook that adds its update."""
        return self._updates.add(name, update)

    def _update_alone(self, layer: LowRankUpdate, x: Tensor) -> Tensor:
        """Return the update of a layer that runs outside a call of the denoiser."""
        down, up = layer.factors()
        mask = self.call.mask(layer.copies, x.dtype)
        return self.scale * layer.added(x, down.to(x), up.to(x), mask)

    # --- public -------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """Say what it is: `<Adapter: tlora on SDXL, rank 64 (linear, least 32), "sks dog">`."""
        own = self.info, self.family, self.schedule, self.blocks
        about = summary_of(*own, layers=len(self.layers), scale=self.scale)
        return f"<Adapter: {about}{'' if self._hooks else ', removed'}>"

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield the trainable tensors, fp32; none for an adapter loaded for sampling only."""
        for layer in self.layers.values():
            yield from layer.parameters()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trainable tensors by their learning rate's factor, `rate`."""
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for layer in self.layers.values():
            key = layer.rate, isinstance(layer, LearnedWord)
            groups.setdefault(key, []).extend(layer.parameters())
        return [{"params": tensors, "rate": rate} for (rate, _), tensors in groups.items()]

    def learn(self, *, word: bool = True, weights: bool = True) -> None:
        """Say what is learned from now on; the rest gets no gradient and stays as it is.

        Args:
            word: the word's vectors, if there are some.
            weights: all else.
        """
        if self._learned == (word, weights):
            return
        self._learned = word, weights
        self._updates.rest(not weights)  # they are as they began, and add nothing
        for layer in self.layers.values():
            layer.requires_grad_(word if isinstance(layer, LearnedWord) else weights)

    def _updated(self) -> list[Change]:
        """Return the changes of weights: all but a word's."""
        return [one for one in self.layers.values() if not isinstance(one, LearnedWord)]

    def penalty(self) -> Tensor | None:
        """Return what the method adds to the diffusion loss; None for most methods."""
        penalty = self.method.penalty
        return penalty(self._updated()) if penalty else None

    def after_step(self, step: int, steps: int) -> None:
        """Do what the method does after an optimizer step, while gradients are still there."""
        if self.method.after_step:
            self.method.after_step(self._updated(), step, steps)

    @property
    def method(self) -> Method:
        """The method, if it is one of ours; else plain LoRA."""
        return METHODS.get(self.info.method or "", METHODS[PLAIN])

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
        model.enable_gradient_checkpointing(self.call.checkpoint)
        self._checkpointed = True

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Inside, the parameters don't change, so factors are built and cast once.

        Where `folded_weights.py` can, the updates are in the weights for the length of a call.
        """
        before, self._cache = self._cache, {}
        try:
            with self.folded(self._folding or self.folding(training=False)):
                yield
        finally:
            self._cache = before

    def reschedule(self, schedule: RankSchedule) -> None:
        """Take another rank schedule from the next call on.

        Args:
            schedule: of the same full rank; the file's own is that of the training.

        Raises:
            ValueError: if the adapter has no ranks, or another number of them.
        """
        if self.schedule is None or self.schedule.rank != schedule.rank:
            raise ValueError("the schedule is of another rank than the adapter")
        self.schedule = self.call.schedule = schedule

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, the denoiser answers as the base model does."""
        before, self.scale = self.scale, 0.0
        try:
            yield
        finally:
            self.scale = before

    @contextmanager
    def unmasked(self) -> Iterator[None]:
        """Inside, all ranks act at every timestep, as in a plain LoRA."""
        before = self.schedule
        if before is None:
            yield
            return
        self.reschedule(RankSchedule(before.rank, before.rank, kind="constant"))
        try:
            yield
        finally:
            self.reschedule(before)

    def folding(self, *, training: bool, device: str = "cpu") -> Folding | None:
        """Return what puts the updates into the weights of a call; None where the pair is better.

        Args:
            training: whether there will be gradients.
            device: `cpu`, or `meta` to plan what it takes there.
        """
        modules = modules_of(self.denoiser)
        possible = can_fold(modules, self._updates, training=training, device=device)
        return Folding(modules, self._updates) if possible else None

    @contextmanager
    def folded(self, folding: Folding | None) -> Iterator[None]:
        """Inside, updates are folded into the weights once a call; None leaves all as it is."""
        if folding is None or folding is self._folding:
            yield
            return
        before, self._folding = self._folding, folding
        try:
            with folding:
                yield
        finally:
            self._folding = before

    def weights(self) -> AdapterWeights:
        """Return the adapter as a file holds it."""
        file, copies = self.without_tensors(), HostCopies()
        with torch.no_grad():
            for name, change in self.layers.items():  # one layer at a time on the GPU
                change.store(name, file, copies)
        copies.wait()
        return file

    def without_tensors(self) -> AdapterWeights:
        """Return all that a file says of the adapter beside its tensors."""
        copies = next(iter(self.layers.values())).copies
        return AdapterWeights(
            {}, copies, self.schedule, self.family.name, self.info, blocks=self.blocks
        )

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
        _forget_compiled()


def _forget_compiled() -> None:
    """Have torch compile again what it has compiled, which does not look for new hooks."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
