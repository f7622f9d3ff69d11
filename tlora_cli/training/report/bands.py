"""Losses by band of the timestep, smoothed; ranks and how often they were drawn."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from tlora_cli.formulas.schedules import RankSchedule
from tlora_cli.training.report.metrics import Step

BANDS = 5
LEAST = 5
"""Samples below which no mean is shown."""
POINTS = 160
"""Most points of a smoothed line."""


@dataclass(frozen=True)
class Band:
    """Timesteps from `low` up to, but not including, `high`; the last band includes it.

    Attributes:
        low, high: its ends.
        samples: (step, loss) of each picture of the concept whose timestep lies in it.
    """

    low: int
    high: int
    samples: list[tuple[int, float]]

    @property
    def name(self) -> str:
        """Its timesteps."""
        return f"{self.low} to {self.high}"


def bands(steps: Sequence[Step], low: int, high: int) -> list[Band]:
    """Return the bands that divide [low, high] evenly, in order.

    Args:
        steps: in order.
        low: least timestep that is drawn.
        high: end of the interval.
    """
    count = min(BANDS, high - low)
    edges = [low + (high - low) * number // count for number in range(count + 1)]
    found = [Band(a, b, []) for a, b in pairwise(edges)]
    for step in steps:
        for timestep, loss in step.samples:
            place = bisect.bisect_right(edges, timestep) - 1
            found[min(max(place, 0), count - 1)].samples.append((step.step, loss))
    return found


def window_of(steps: int) -> int:
    """Return over how many steps is smoothed: a fifth of those done, at least 10."""
    return max(10, round(steps / 5))


def mean_between(samples: Sequence[tuple[int, float]], after: int, upto: int) -> float | None:
    """Return the mean of the values at steps in (after, upto]; None for fewer than `LEAST`.

    Args:
        samples: (step, value) in order.
        after: left out.
        upto: included.
    """
    first = bisect.bisect_right(samples, after, key=lambda one: one[0])
    last = bisect.bisect_right(samples, upto, key=lambda one: one[0])
    if last - first < LEAST:
        return None
    return sum(value for _, value in samples[first:last]) / (last - first)


def smoothed(
    samples: Sequence[tuple[int, float]], window: int, steps: int
) -> list[tuple[float, float]]:
    """Return (step, mean of the values of the last `window` steps), at up to `POINTS` steps.

    Args:
        samples: (step, value) in order.
        window: in steps.
        steps: done.
    """
    places = sorted({round(steps * number / POINTS) for number in range(1, POINTS + 1)} - {0})
    means = ((step, mean_between(samples, step - window, step)) for step in places)
    return [(float(step), mean) for step, mean in means if mean is not None]


def speeds(steps: Sequence[Step], window: int) -> list[tuple[float, float]]:
    """Return (step, steps a second over the last `window` steps), at up to `POINTS` steps."""
    timed = [(one.step, one.seconds) for one in steps if one.seconds is not None]
    if not timed:
        return []
    numbers = [step for step, _ in timed]
    chosen = {round(numbers[-1] * number / POINTS) for number in range(1, POINTS + 1)}
    found = []
    for step, seconds in timed:
        before = bisect.bisect_right(numbers, step - window) - 1
        if step not in chosen or before < 0:
            continue
        earlier, then = timed[before]
        if seconds > then:
            found.append((float(step), (step - earlier) / (seconds - then)))
    return found


def drawn(steps: Sequence[Step]) -> Counter[float]:
    """Return how often each timestep was drawn for a picture of the concept."""
    return Counter(timestep for step in steps for timestep, _ in step.samples)


def drawn_ranks(counts: Counter[float], schedule: RankSchedule) -> dict[int, int]:
    """Return how often each rank that the schedule knows was active, from the least to the most."""
    every = torch.arange(schedule.num_train_timesteps + 1)
    ranks = dict.fromkeys(sorted(set(schedule.active_rank(every).tolist())), 0)
    times = list(counts)
    for timestep, rank in zip(
        times, schedule.active_rank(torch.tensor(times)).tolist(), strict=True
    ):
        ranks[rank] = ranks.get(rank, 0) + counts[timestep]
    return dict(sorted(ranks.items()))
