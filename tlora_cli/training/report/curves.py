"""Sections of a report that show numbers over steps or timesteps, each plot with its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.pages.axes import COLORS
from tlora_cli.foundation.pages.templates import NOTHING, part
from tlora_cli.methods import METHODS
from tlora_cli.training.ranks import rank_schedule
from tlora_cli.training.report.bands import (
    LEAST,
    bands,
    drawn,
    drawn_ranks,
    mean_between,
    smoothed,
    speeds,
    window_of,
)
from tlora_cli.training.report.drawing import Line, count_plot, line_plot, rank_plot
from tlora_cli.training.report.embedded_images import GRID, likeness
from tlora_cli.training.report.reading import Run

TEMPLATE = "training/report/sections.html.jinja"
LEAST_POINTS = 4
"""Points below which a line is a table: a plot of three dots says nothing."""
CHANGE = 1.05
"""Growth of memory that is worth a plot."""
TIMESTEPS = 1000
"""T, the end of the axis of timesteps."""


def copying_section(run: Run) -> str:
    """Return how alike previews and training pictures are, over the steps."""
    training = [picture for picture, _ in run.pictures]
    if not training or not run.previews:
        return ""
    by_strip: dict[tuple[str, str], list[tuple[float, float]]] = {}
    by_step: dict[int, list[float]] = {}
    for one in run.previews:
        value = likeness(one.seen, training)
        by_strip.setdefault((one.prompt, one.seed), []).append((one.step, value))
        by_step.setdefault(one.step, []).append(value)
    means = [(float(step), sum(v) / len(v)) for step, v in sorted(by_step.items())]
    lines = [
        Line(f"{prompt}, seed {seed}" if seed else prompt, points, color(n), kind="thin")
        for n, ((prompt, seed), points) in enumerate(by_strip.items(), 1)
    ]
    lines.append(Line("mean of all", means, color(0)))
    every = [value for values in by_step.values() for value in values]
    ends = min(-0.2, *every) - 0.02, 1.0
    plot = line_plot(lines, int(means[-1][0]), "correlation", ends=ends) if says(means) else ""
    rows = [(f"step {step:.0f}", [f"{mean:.3f}"]) for step, mean in means]
    return part(TEMPLATE, "copying", grid=GRID, plot=plot, rows=rows)


def says(points: Sequence[object]) -> bool:
    """Return whether a line of these points says more than their numbers do."""
    return len(points) >= LEAST_POINTS


def color(number: int) -> str:
    """Return the color of a line."""
    return COLORS[number % len(COLORS)]


def loss_section(run: Run) -> str:
    """Return the smoothed loss of each band of timesteps."""
    steps, times = run.metrics.steps, run.recipe.train.timesteps
    if not steps:
        return ""
    last = steps[-1].step
    window = window_of(last)
    found = bands(steps, times.low, times.high)
    lines = [
        Line(one.name, smoothed(one.samples, window, last), color(n), dots=one.samples)
        for n, one in enumerate(found)
        if one.samples
    ]
    whole = [(step.step, step.loss) for step in steps]
    if not lines:
        lines = [Line("mean of each step", smoothed(whole, window, last), color(0), dots=whole)]
    rows = []
    for name, samples in [*((one.name, one.samples) for one in found), ("all, by step", whole)]:
        early, late = mean_between(samples, 0, window), mean_between(samples, last - window, last)
        change = f"{100 * (late / early - 1):+.0f}%" if early and late is not None else NOTHING
        rows.append((name, [str(len(samples)), _mean(early), _mean(late), change]))
    shown = any(says(line.points) for line in lines)
    plot = line_plot(lines, last, "loss", log=True) if shown else ""
    return part(TEMPLATE, "losses", last=last, window=window, least=LEAST, plot=plot, rows=rows)


def _mean(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def rank_section(run: Run) -> str:
    """Return the schedule, and how often each rank was drawn."""
    adapter = run.recipe.adapter
    family, method = FAMILIES[run.recipe.family], adapter.method
    schedule = rank_schedule(adapter, run.recipe.train.seed, family, family.standard_scheduler)
    if schedule is not None and run.axis is not None:
        schedule = replace(schedule, axis=run.axis)
    counts = drawn(run.metrics.steps)
    plot = rank_plot(schedule, counts, TIMESTEPS) if schedule or counts else ""
    if schedule is None:
        rank = run.recipe.adapter.rank if METHODS[method].low_rank else None
        return part(TEMPLATE, "no_ranks", method=method, rank=rank, plot=plot)
    ranks = drawn_ranks(counts, schedule)
    active = schedule.active_rank(torch.arange(TIMESTEPS)).tolist()
    rows = [(str(rank), [_timesteps(active, rank), str(count)]) for rank, count in ranks.items()]
    return part(
        TEMPLATE,
        "ranks",
        schedule=schedule,
        pictures=sum(counts.values()),
        plots=[plot, count_plot(ranks)],
        rows=rows,
    )


def _timesteps(active: list[int], rank: int) -> str:
    """Return from where to where a rank is active; of scattered timesteps, how many they are."""
    own = [t for t, one in enumerate(active) if one == rank]
    if not own:
        return NOTHING
    joined = own[-1] - own[0] + 1 == len(own)
    return f"{own[0]} to {own[-1]}" if joined else f"{len(own)} timesteps"


def cost_section(run: Run) -> str:
    """Return speed and memory over the steps."""
    steps = run.metrics.steps
    if not steps:
        return ""
    last, plots = steps[-1].step, []
    window = max(1, round(last / 20))
    if says(speed := speeds(steps, window)):
        plot = line_plot([Line("", speed, color(0))], last, "steps a second")
        plots.append((f"Speed, over the last {window} steps", plot))
    every = 1 + len(steps) // 200
    memory = [(float(s.step), s.memory_gb) for s in steps[::every] if s.memory_gb is not None]
    if says(memory) and memory[-1][1] > CHANGE * memory[0][1]:  # a flat line is a fact above
        plot = line_plot([Line("", memory, color(1))], last, "GB")
        plots.append(("Peak memory so far", plot))
    return part(TEMPLATE, "costs", plots=plots) if plots else ""
