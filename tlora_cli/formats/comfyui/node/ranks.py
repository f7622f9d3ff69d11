"""The number of ranks that act at a timestep (T-LoRA, arXiv 2507.05964, eq. 4; and other kinds).

The formulas are those of tlora's `formulas/schedules.py` and `formulas/noise_axis.py`; tests hold
both to the same numbers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NoiseAxis:
    """The line on which ranks go by noise level: u = T (1 - sigmoid(logsnr / scale + shift)).

    Attributes:
        scale, shift: of the line.
        signal: the signal's share of the variance at t = 0, 1, ...
    """

    scale: float
    shift: float
    signal: tuple[float, ...]

    def timesteps(self, t: Tensor, top: int) -> Tensor:
        """Return u of timesteps t, straight between whole ones."""
        log_snr = torch.tensor(self.signal, dtype=torch.float64).logit()
        table = top * (1 - (log_snr / self.scale + self.shift).sigmoid())
        table = (table * 1e9).round() / 1e9
        last = len(table) - 1
        low = t.floor().clamp(0, last)
        here = table[low.long()]
        after = table[(low.long() + 1).clamp(max=last)]
        return here + (t - low).clamp(0, 1) * (after - here)


@dataclass(frozen=True)
class Schedule:
    """A rank schedule.

    Attributes:
        rank: R, all ranks.
        min_rank: at the noisiest timestep.
        kind: linear, constant, cosine, step, piecewise, reversed or random.
        alpha: exponent of the linear kind.
        top: T; timesteps lie in [0, T].
        points: (timestep, rank) of step and piecewise.
        seed: of random.
        axis: of noise levels, if ranks go by them.
    """

    rank: int
    min_rank: int
    kind: str = "linear"
    alpha: float = 1.0
    top: int = 1000
    points: tuple[tuple[float, int], ...] = ()
    seed: int = 0
    axis: NoiseAxis | None = None

    def ranks(self, timesteps: Tensor) -> Tensor:
        """Return the active rank of timesteps (B,), a LongTensor (B,) on the CPU.

        Raises:
            ValueError: for a kind that this version doesn't know.
        """
        t = timesteps.detach().cpu().double()
        if self.axis is not None:
            t = self.axis.timesteps(t, self.top)
        t = t.clamp(0, self.top)
        if self.kind == "constant":
            found = torch.full_like(t, self.rank)
        elif self.kind == "linear":
            found = self._linear(t)
        elif self.kind == "cosine":
            share = (1 + (math.pi * t / self.top).cos()) / 2
            found = (self.rank - self.min_rank) * share + self.min_rank
        elif self.kind == "reversed":
            found = self._linear((self.top - 1 - t).clamp(min=0))
        elif self.kind == "random":
            order = torch.randperm(self.top, generator=torch.Generator().manual_seed(self.seed))
            found = self._linear(order[t.floor().long().clamp(0, self.top - 1)].double())
        elif self.kind in ("step", "piecewise"):
            found = self._by_points(t)
        else:
            raise ValueError(f"the rank schedule {self.kind!r} is not known; update the node")
        return found.floor().long()

    def _linear(self, t: Tensor) -> Tensor:
        span, left = self.rank - self.min_rank, self.top - t
        if self.alpha == 1.0:  # multiply first: exact where the result is a whole number
            return span * left / self.top + self.min_rank
        return span * (left / self.top) ** self.alpha + self.min_rank

    def _by_points(self, t: Tensor) -> Tensor:
        table = torch.tensor(self.points, dtype=torch.float64)
        times, ranks = table[:, 0].contiguous(), table[:, 1].contiguous()
        before = torch.searchsorted(times, t.contiguous(), right=True) - 1
        if self.kind == "step" or len(times) == 1:
            return ranks[before.clamp(min=0)]
        index = before.clamp(0, len(times) - 2)
        share = ((t - times[index]) / (times[index + 1] - times[index])).clamp(0, 1)
        return ranks[index] + share * (ranks[index + 1] - ranks[index])


def read_schedule(header: Mapping[str, str]) -> Schedule:
    """Return the schedule in the header of tlora's own file.

    Raises:
        KeyError, ValueError, TypeError: if the header is damaged.
    """
    axis = None
    if "tlora.axis" in header:
        signal = tuple(float(share) for share in json.loads(header["tlora.axis_signal"]))
        axis = NoiseAxis(
            float(header["tlora.axis_scale"]), float(header["tlora.axis_shift"]), signal
        )
    points = json.loads(header.get("tlora.points", "null")) or ()
    return Schedule(
        rank=int(header["tlora.rank"]),
        min_rank=int(header["tlora.min_rank"]),
        kind=header["tlora.schedule"],
        alpha=float(header["tlora.alpha"]),
        top=int(header["tlora.num_train_timesteps"]),
        points=tuple((float(t), int(rank)) for t, rank in points),
        seed=int(header["tlora.schedule_seed"]),
        axis=axis,
    )


def said_schedule(header: Mapping[str, str], rank: int) -> Schedule | None:
    """Return the schedule that SimpleTuner says in the header of a LyCORIS T-LoRA of this rank.

    tlora says it there, too. None if the settings are those of another rank, or not there.

    Raises:
        ValueError, TypeError: if they are damaged.
    """
    settings = json.loads(header.get("lycoris_config", "null"))
    if not isinstance(settings, dict) or settings.get("linear_dim") != rank:
        return None
    least = min(int(settings.get("tlora_min_rank", 1)), rank)
    return Schedule(rank, least, alpha=float(settings.get("tlora_alpha", 1.0)))
