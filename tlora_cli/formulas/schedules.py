"""Rank schedules: timestep -> active rank -> mask. The only copy of the formula.

A schedule says how many of an adapter's R rank components act at a timestep t in [0, T). Noisier
timesteps (larger t) get fewer, because they overfit sooner (T-LoRA, arXiv 2507.05964, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, TypeAlias, overload

from tlora_cli.formulas.noise_axis import NoiseAxis
from tlora_cli.foundation.plugins import Registry

if TYPE_CHECKING:
    import torch
    from torch import Tensor

MAX_TIMESTEPS = 100_000
"""Far above the 1000 of every known model: tables of all timesteps stay small."""

Ranks: TypeAlias = "Callable[[RankSchedule, Tensor], Tensor]"
"""(schedule, float64 timesteps of any shape) -> ranks that are not yet floored."""


@dataclass(frozen=True)
class ScheduleKind:
    """A kind of schedule: its formula, and what a recipe must know of it.

    Attributes:
        ranks: the formula.
        about: what stands behind the name in the recipe's help.
        takes_points: whether it goes through the schedule's `points`.
        always_full: whether all ranks act at every timestep.
    """

    ranks: Ranks
    about: str
    takes_points: bool = False
    always_full: bool = False


def schedule_kind(
    about: str, *, takes_points: bool = False, always_full: bool = False
) -> Callable[[Ranks], ScheduleKind]:
    """Return a decorator that makes a formula a kind of schedule."""
    return lambda ranks: ScheduleKind(ranks, about, takes_points, always_full)


SCHEDULES: Registry[ScheduleKind] = Registry(
    "tlora.schedules",
    {
        "linear": "tlora_cli.formulas.schedules:linear",
        "constant": "tlora_cli.formulas.schedules:constant",
        "cosine": "tlora_cli.formulas.schedules:cosine",
        "step": "tlora_cli.formulas.schedules:step",
        "piecewise": "tlora_cli.formulas.schedules:piecewise",
        "reversed": "tlora_cli.formulas.schedules:mirrored",
        "random": "tlora_cli.formulas.schedules:shuffled",
    },
)
"""Name -> kind of schedule."""

CONTROL = "controls with the same mean rank as linear"


@schedule_kind("the paper's, with exponent alpha")
def linear(schedule: RankSchedule, t: Tensor) -> Tensor:
    """Eq. 4: the rank falls as a power of the noise-free share (T - t) / T."""
    span = schedule.rank - schedule.min_rank
    remaining = schedule.num_train_timesteps - t
    if schedule.alpha == 1.0:
        # Multiply before dividing: exact where (R - r_min)(T - t) / T is a whole number.
        return span * remaining / schedule.num_train_timesteps + schedule.min_rank
    return span * (remaining / schedule.num_train_timesteps) ** schedule.alpha + schedule.min_rank


@schedule_kind("always the full rank", always_full=True)
def constant(schedule: RankSchedule, t: Tensor) -> Tensor:
    """Full rank at every timestep: plain LoRA."""
    return t.new_full(t.shape, schedule.rank)


@schedule_kind("half a cosine")
def cosine(schedule: RankSchedule, t: Tensor) -> Tensor:
    """Half a cosine from R at t = 0 to r_min at t = T."""
    share = (1 + (math.pi * t / schedule.num_train_timesteps).cos()) / 2
    return (schedule.rank - schedule.min_rank) * share + schedule.min_rank


@schedule_kind("through `points`", takes_points=True)
def step(schedule: RankSchedule, t: Tensor) -> Tensor:
    """Rank of the last point at or before t; before the first point, its rank."""
    import torch

    times, ranks = schedule.points_as_tensors(t.device)
    index = torch.searchsorted(times, t.contiguous(), right=True) - 1
    return ranks[index.clamp(min=0)]


@schedule_kind("through `points`", takes_points=True)
def piecewise(schedule: RankSchedule, t: Tensor) -> Tensor:
    """Straight lines through the points; level before the first and after the last."""
    import torch

    times, ranks = schedule.points_as_tensors(t.device)
    if len(times) == 1:
        return torch.full_like(t, float(ranks[0]))
    index = (torch.searchsorted(times, t.contiguous(), right=True) - 1).clamp(0, len(times) - 2)
    share = ((t - times[index]) / (times[index + 1] - times[index])).clamp(0, 1)
    return ranks[index] + share * (ranks[index + 1] - ranks[index])


@schedule_kind(CONTROL)
def mirrored(schedule: RankSchedule, t: Tensor) -> Tensor:
    """Control: the linear schedule of the mirrored timestep T - 1 - t, so the same mean rank."""
    return linear.ranks(schedule, (schedule.num_train_timesteps - 1 - t).clamp(min=0))


@schedule_kind(CONTROL)
def shuffled(schedule: RankSchedule, t: Tensor) -> Tensor:
    """Control: the linear schedule of a shuffled timestep, so the same mean rank at no order.

    The shuffle is a fixed permutation of 0..T-1 drawn from the seed: training and sampling agree.
    """
    index = t.floor().long().clamp(0, schedule.num_train_timesteps - 1)
    order = _permutation(schedule.num_train_timesteps, schedule.seed, t.device)
    return linear.ranks(schedule, order[index].to(t.dtype))


# Copied to a device once, so that no call of the denoiser has to wait for it.
@cache
def _permutation(count: int, seed: int, device: torch.device) -> Tensor:
    import torch

    return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(device)


@cache
def _table(points: tuple[tuple[float, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    import torch

    table = torch.tensor(points, dtype=torch.float64, device=device)
    return table[:, 0].contiguous(), table[:, 1].contiguous()


@dataclass(frozen=True)
class RankSchedule:
    """The schedule of how many of `rank` components are active at a timestep.

    Args:
        rank: full rank R.
        min_rank: rank at the noisiest timestep, 1..R (R // 2 in the paper on SDXL).
        alpha: exponent of the linear schedule (eq. 4; 1 in the paper).
        kind: a name of `SCHEDULES`.
        num_train_timesteps: T; timesteps lie in [0, T].
        points: (timestep, rank) pairs in rising timestep, for kinds that take them.
        seed: order of the `random` control.
        axis: of the base, where ranks go by its noise levels; None: by its timesteps.

    Raises:
        ValueError: for a rank, kind or points that make no schedule.
    """

    rank: int
    min_rank: int
    alpha: float = 1.0
    kind: str = "linear"
    num_train_timesteps: int = 1000
    points: Sequence[tuple[float, int]] | None = None
    seed: int = 0
    axis: NoiseAxis | None = None

    def __post_init__(self) -> None:
        if self.kind not in SCHEDULES:
            raise ValueError(f"unknown schedule kind {self.kind!r}; known: {', '.join(SCHEDULES)}")
        if not 1 <= self.min_rank <= self.rank:
            raise ValueError(f"min_rank {self.min_rank} must lie in 1..rank ({self.rank})")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha {self.alpha} must be a number above 0")
        if not 1 <= self.num_train_timesteps <= MAX_TIMESTEPS:
            raise ValueError(
                f"num_train_timesteps {self.num_train_timesteps} must lie in 1..{MAX_TIMESTEPS}"
            )
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"seed {self.seed} must be a number of 64 bits")
        if SCHEDULES[self.kind].takes_points:
            object.__setattr__(self, "points", self._checked_points())

    def _checked_points(self) -> tuple[tuple[float, int], ...]:
        points = tuple((float(t), int(r)) for t, r in self.points or ())
        if not points:
            raise ValueError(f"schedule kind {self.kind!r} needs points")
        if not all(math.isfinite(t) for t, _ in points):
            raise ValueError("the timesteps of points must be finite")
        if any(b[0] <= a[0] for a, b in pairwise(points)):
            raise ValueError("the timesteps of points must rise")
        if any(not 0 <= r <= self.rank for _, r in points):
            raise ValueError(f"the ranks of points must lie in 0..{self.rank}")
        return points

    def points_as_tensors(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return the points' timesteps and ranks, float64 tensors (N,)."""
        return _table(tuple(self.points or ()), device)

    @property
    def title(self) -> str:
        """Its kind, and whether it goes by noise level, in words."""
        return self.kind if self.axis is None else f"{self.kind} by noise level"

    @property
    def always_full(self) -> bool:
        """Whether every component is active at every timestep, so no mask is needed."""
        kind = SCHEDULES[self.kind]
        return kind.always_full or (self.min_rank == self.rank and not kind.takes_points)

    @overload
    def active_rank(self, timestep: float) -> int: ...
    @overload
    def active_rank(self, timestep: Tensor) -> Tensor: ...
    def active_rank(self, timestep: float | Tensor) -> int | Tensor:
        """Active rank r(t) = floor((R - r_min) ((T - t) / T)^alpha) + r_min (eq. 4 for linear).

        Args:
            timestep: a number, or a tensor of timesteps on the 0..T scale, whole or fractional;
                with an axis, of the base whose noise levels it has.

        Returns:
            An int for a number; for a tensor (B,) a LongTensor (B,) on the same device.
        """
        import torch

        if not isinstance(timestep, torch.Tensor):
            return int(self.active_rank(torch.tensor([timestep], dtype=torch.float64))[0])
        t = timestep.double()
        if self.axis is not None:
            t = self.axis.timesteps(t, self.num_train_timesteps)
        t = t.clamp(0, self.num_train_timesteps)
        return SCHEDULES[self.kind].ranks(self, t).floor().long()

    def mask(self, timesteps: Tensor) -> Tensor:
        """Mask of the active components: row b has r(t_b) ones, then zeros.

        Args:
            timesteps: (B,) on the 0..T scale.

        Returns:
            (B, R) float32 on the device of `timesteps`.
        """
        import torch

        components = torch.arange(self.rank, device=timesteps.device)
        return (components < self.active_rank(timesteps).unsqueeze(-1)).float()
