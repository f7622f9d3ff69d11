"""A rank schedule of two levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tlora_cli.formulas.schedules import RankSchedule, schedule_kind

if TYPE_CHECKING:
    from torch import Tensor


@schedule_kind("the full rank in the clearer half, the least in the noisier one")
def halves(schedule: RankSchedule, t: Tensor) -> Tensor:
    """R for t < T / 2, r_min from there on."""
    clear = (t < schedule.num_train_timesteps / 2).to(t.dtype)
    return schedule.min_rank + (schedule.rank - schedule.min_rank) * clear
