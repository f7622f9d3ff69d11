"""A rank schedule as slices: ranks that switch on together when the picture gets clear enough."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import torch

from tlora_cli.formats.weights import Pair
from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.foundation.errors import UserError

MARGIN = 1e-3
"""A slice switches this much above its last timestep, so that rounding can't miss it."""
_HALVINGS = 60


@dataclass(frozen=True)
class Slice:
    """Components first..end - 1, active where t < below; None: at every timestep."""

    first: int
    end: int
    below: float | None


def cut(pair: Pair, copies: int, one: Slice) -> Pair:
    """Return the factors of a slice: its components of each copy.

    Args:
        pair: down (copies * R, in), up (out, copies * R).
        copies: 2 for the ortho form.
        one: which components.
    """
    down, up = pair
    rank = len(down) // copies
    chosen = torch.cat([torch.arange(one.first, one.end) + copy * rank for copy in range(copies)])
    return down[chosen], up[:, chosen]


def slices_of(schedule: RankSchedule) -> list[Slice]:
    """Return the slices of a schedule whose rank never rises with t.

    Components that act at no timestep are in none.

    Raises:
        UserError: for the controls, whose ranks go off again as the picture gets clearer.
    """
    t = torch.linspace(0, schedule.num_train_timesteps, 8 * schedule.num_train_timesteps + 1)
    ranks = schedule.active_rank(t.double())
    if (ranks.diff() > 0).any():
        raise UserError(
            f"the {schedule.kind} schedule switches ranks off again as the picture gets clearer, "
            "which slices of ranks can't show",
            where="adapter.schedule",
            do="convert it --to kohya, without its schedule",
        )
    ends = [_end(schedule, component) for component in range(int(ranks.max()))]
    found, first = [], 0
    for below, group in groupby(ends):
        end = first + len(list(group))
        found.append(Slice(first, end, below))
        first = end
    return found


def _end(schedule: RankSchedule, component: int) -> float | None:
    """Return a t below which a component is active, and from which on it isn't."""
    low, high = 0.0, float(schedule.num_train_timesteps)
    if schedule.active_rank(high) > component:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if schedule.active_rank(middle) > component:
            low = middle
        else:
            high = middle
    # Linear schedules are still on at their threshold, step schedules off at theirs.
    whole = float(round(low))
    if abs(whole - low) < MARGIN:
        return whole + MARGIN if schedule.active_rank(whole) > component else whole - MARGIN
    return low + MARGIN
