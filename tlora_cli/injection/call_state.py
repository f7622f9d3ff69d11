"""The state of the denoiser's present call: its timesteps, their masks, the layers' factors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tlora_cli.formulas.schedules import RankSchedule


@dataclass
class _Call:
    """A call of the denoiser.

    Attributes:
        timesteps: (B,) on the 0..T scale; None before the first call.
        masks: (copies, dtype) -> mask.
        factors: what the layers run with; None if nothing was made for the call.
    """

    timesteps: Tensor | None = None
    masks: dict[tuple[int, torch.dtype], Tensor] = field(default_factory=dict)
    factors: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Return all but the factors, which belong to a graph and can't be copied."""
        return {**self.__dict__, "factors": None}


class CallState:
    """Holds the mask of the denoiser's present call, and the factors made for it.

    Args:
        schedule: timestep -> mask.
        timesteps: (timesteps that the denoiser is given, in fp64) -> those on the 0..T scale.
        install: hands a call's factors to the layers; None takes them away.
    """

    def __init__(
        self,
        schedule: RankSchedule,
        timesteps: Callable[[Tensor], Tensor],
        install: Callable[[Any], None] = lambda factors: None,
    ) -> None:
        self.schedule = schedule
        self.timesteps = timesteps
        self._install = install
        self._call = _Call()

    def set_timestep(self, timestep: Tensor | float, device: torch.device) -> None:
        """Take the timestep(s) of a call, on the denoiser's own scale."""
        given = torch.as_tensor(timestep, device=device).detach().reshape(-1).double()
        self._enter(_Call(self.timesteps(given)))

    def keep(self, factors: Any) -> None:
        """Take what the layers run with until the next call."""
        self._call.factors = factors
        self._install(factors)

    def _enter(self, call: _Call) -> None:
        if self._call.factors is not call.factors:
            self._install(call.factors)
        self._call = call

    def mask(self, copies: int, dtype: torch.dtype) -> Tensor | None:
        """Return the mask (B, copies * R) of the present call; None if nothing is ever masked."""
        if self.schedule.always_full:
            return None
        call = self._call
        if call.timesteps is None:
            raise RuntimeError(
                "a layer ran before the denoiser was called, so the timestep is not known"
            )
        key = (copies, dtype)
        if key not in call.masks:
            call.masks[key] = self.schedule.mask(call.timesteps).repeat(1, copies).to(dtype)
        return call.masks[key]

    @property
    def active_rank(self) -> Tensor:
        """Active rank of each timestep of the present call, (B,)."""
        timesteps = self._call.timesteps
        assert timesteps is not None, "the denoiser was not called yet"
        return self.schedule.active_rank(timesteps)

    @contextmanager
    def _holding(self, call: _Call) -> Iterator[None]:
        present = self._call
        self._enter(call)
        try:
            yield
        finally:
            self._enter(present)

    def checkpoint(self, function: Any, *inputs: Any) -> Any:
        """Activation checkpointing that recomputes under the mask of the forward pass.

        Plain checkpointing reads the state when it recomputes, which is the same only if no other
        call came in between.
        """
        call = self._call

        def run(*arguments: Any) -> Any:
            with self._holding(call):
                return function(*arguments)

        return checkpoint(run, *inputs, use_reentrant=False)
