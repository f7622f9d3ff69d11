"""A rank schedule as slices: ranks that switch on together when the picture gets clear enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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


def wider(schedule: RankSchedule, count: int) -> tuple[RankSchedule, int]:
    """Return a schedule of steps with at most `count` slices, and how many ranks it is off at most.

    Neighboring slices switch on together, in the middle of them; what acts at every timestep stays
    as it is. Slices are put together so that the largest number of ranks in one is least.

    Args:
        schedule: whose rank never rises with t.
        count: of slices, at least 2.

    Raises:
        UserError: for the controls, as `slices_of`.
    """
    slices = slices_of(schedule)
    later = [one for one in slices if one.below is not None]
    groups = _groups(later, count - (len(slices) - len(later)))
    if len(groups) == len(later):
        return schedule, 0
    chosen = [_switch(group) for group in groups]
    points = [(0.0, slices[-1].end)]
    for group, (below, _) in zip(reversed(groups), reversed(chosen), strict=True):
        points.append((_on_axis(schedule, below), group[0].first))
    steps = replace(schedule, kind="step", points=tuple(points))
    return steps, max(off for _, off in chosen)


def _on_axis(schedule: RankSchedule, t: float) -> float:
    """Return where a timestep of the base lies on the axis that the schedule's ranks go by."""
    if schedule.axis is None:
        return t
    at = torch.tensor([t], dtype=torch.float64)
    return float(schedule.axis.timesteps(at, schedule.num_train_timesteps))


def _groups(slices: Sequence[Slice], count: int) -> list[list[Slice]]:
    """Return neighbors together, at most `count` groups, of which the largest is the smallest."""
    most = max((one.end - one.first for one in slices), default=0)
    while True:
        groups: list[list[Slice]] = []
        for one in slices:
            if groups and one.end - groups[-1][0].first <= most:
                groups[-1].append(one)
            else:
                groups.append([one])
        if len(groups) <= count:
            return groups
        most += 1


def _switch(group: Sequence[Slice]) -> tuple[float, int]:
    """Return the t below which a group is on, and how many of its ranks are then wrong at most.

    Those before the chosen slice are on too late, those after it too early.
    """
    first, end = group[0].first, group[-1].end
    best = min(group, key=lambda one: max(one.first - first, end - one.end))
    assert best.below is not None
    return best.below, max(best.first - first, end - best.end)
