"""The gate: the mask of the denoiser's present call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tlora_cli.schedules import RankSchedule


class MaskGate:
    """Holds the mask of the denoiser's present call.

    Args:
        schedule: timestep -> mask.
        timestep_scale: the denoiser's timestep times this lies on the 0..T scale.
    """

    def __init__(self, schedule: RankSchedule, timestep_scale: float) -> None:
        self.schedule = schedule
        self.timestep_scale = timestep_scale
        self._timesteps: Tensor | None = None
        self._masks: dict[tuple[int, torch.dtype], Tensor] = {}

    def set_timestep(self, timestep: Tensor | float, device: torch.device) -> None:
        """Take the timestep(s) of a call, on the denoiser's own scale."""
        t = torch.as_tensor(timestep, device=device).detach().reshape(-1).double()
        if self.timestep_scale != 1.0:
            # The caller divided by the scale in fp32; undo its rounding, so that t = 300 does not
            # come back as 300.000012 and fall on the other side of a step of the rank. A pipeline
            # in bf16 has rounded t itself before, and the model is told that t too.
            t = (t * self.timestep_scale * 1e4).round() / 1e4
        self._timesteps, self._masks = t, {}

    def mask(self, copies: int, dtype: torch.dtype) -> Tensor | None:
        """Return the mask (B, copies * R) of the present call; None if nothing is ever masked."""
        if self.schedule.always_full:
            return None
        if self._timesteps is None:
            raise RuntimeError(
                "a layer ran before the denoiser was called, so the timestep is not known"
            )
        key = (copies, dtype)
        if key not in self._masks:
            mask = self.schedule.mask(self._timesteps).repeat(1, copies)
            self._masks[key] = mask.to(dtype)
        return self._masks[key]

    @property
    def active_rank(self) -> Tensor:
        """Active rank of each timestep of the present call, (B,)."""
        assert self._timesteps is not None, "the denoiser was not called yet"
        return self.schedule.active_rank(self._timesteps)

    @contextmanager
    def _holding(self, timesteps: Tensor | None, masks: dict[Any, Tensor]) -> Iterator[None]:
        present = self._timesteps, self._masks
        self._timesteps, self._masks = timesteps, masks
        try:
            yield
        finally:
            self._timesteps, self._masks = present

    def checkpoint(self, function: Any, *inputs: Any) -> Any:
        """Activation checkpointing that recomputes under the mask of the forward pass.

        Plain checkpointing reads the gate when it recomputes, which is the same only if no other
        call came in between.
        """
        timesteps, masks = self._timesteps, self._masks

        def run(*arguments: Any) -> Any:
            with self._holding(timesteps, masks):
                return function(*arguments)

        return checkpoint(run, *inputs, use_reentrant=False)
