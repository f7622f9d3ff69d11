"""Sections of a report that show numbers over steps or timesteps, each plot with its words."""

from __future__ import annotations

import torch

from tlora_cli.foundation.axes import COLORS
from tlora_cli.foundation.pages import NOTHING, table
from tlora_cli.recipe.section import RANKLESS_METHODS
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
from tlora_cli.training.report.pictures import GRID, likeness
from tlora_cli.training.report.reading import Run

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
    plot = line_plot(lines, int(means[-1][0]), "correlation", ends=(min(-0.2, *every) - 0.02, 1.0))
    rows = [(f"step {step:.0f}", [f"{mean:.3f}"]) for step, mean in means]
    note = (
        "Measured on the previews: picture and training picture are cropped to their middle square "
        f"and averaged to {GRID} x {GRID} pixels, each color channel less its mean; shown is the "
        "correlation of these numbers, with the most similar training picture. 1 is the same "
        "picture (layout and colors), 0 is nothing in common. A concept that is rightly in the "
        "same place raises it, too, so look at how it changes. It is another measure than the "
        "copying of <code>tlora evaluate</code>, which compares features of an image encoder."
    )
    return (
        f'<h2>Copying of the training picture</h2><p class="note">{note}</p>'
        f'<div class="plots"><div>{plot}</div></div>'
        f"<details><summary>Means as a table</summary>{table(['', 'mean'], rows)}</details>"
    )


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
    first_head, last_head = f"steps 1 to {window}", f"steps {last - window + 1} to {last}"
    rows = []
    for name, samples in [*((one.name, one.samples) for one in found), ("all, by step", whole)]:
        early, late = mean_between(samples, 0, window), mean_between(samples, last - window, last)
        change = f"{100 * (late / early - 1):+.0f}%" if early and late is not None else NOTHING
        rows.append((name, [str(len(samples)), _mean(early), _mean(late), change]))
    note = (
        f"The loss depends on the timestep more than on anything else, so it is shown by band. A "
        "band holds timesteps from its first number up to, but not including, its second (the last "
        f"band includes it). Lines are means over the samples of the last {window} steps (a fifth "
        f"of those done, at least 10), from {LEAST} samples on; dots are single pictures, as far "
        "as they lie within the plot. Pictures of the concept only; the axis is logarithmic."
    )
    plot = line_plot(lines, last, "loss", log=True)
    heads = ["timesteps", "samples", first_head, last_head, "change"]
    return (
        f'<h2>Loss by timestep</h2><p class="note">{note}</p>'
        f'<div class="plots"><div>{plot}</div><div>{table(heads, rows)}</div></div>'
    )


def _mean(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4f}"


def rank_section(run: Run) -> str:
    """Return the schedule, and how often each rank was drawn."""
    adapter = run.recipe.adapter
    schedule, method = rank_schedule(adapter, run.recipe.train.seed), adapter.method
    counts = drawn(run.metrics.steps)
    if schedule is None:
        said = f"{method} has no rank schedule: "
        said += (
            "it has no ranks at all."
            if method in RANKLESS_METHODS
            else f"all {run.recipe.adapter.rank} ranks are active at every timestep."
        )
        body = f'<p class="note">{said} Bars: how often timesteps were drawn.</p>'
        plots = f"<div>{rank_plot(None, counts, TIMESTEPS)}</div>"
        return f'<h2>Active rank</h2>{body}<div class="plots">{plots}</div>'
    ranks = drawn_ranks(counts, schedule)
    note = (
        f"The line is the run's schedule ({schedule.kind}, rank {schedule.rank}, least rank "
        f"{schedule.min_rank}); bars behind it and the second plot count the timesteps that "
        f"training drew for its {sum(counts.values())} pictures of the concept so far."
    )
    active = schedule.active_rank(torch.arange(TIMESTEPS)).tolist()
    rows = [(str(rank), [_timesteps(active, rank), str(count)]) for rank, count in ranks.items()]
    return (
        f'<h2>Active rank</h2><p class="note">{note}</p><div class="plots">'
        f"<div>{rank_plot(schedule, counts, TIMESTEPS)}</div><div>{count_plot(ranks)}</div></div>"
        "<details><summary>Ranks as a table</summary>"
        f"{table(['active rank', 'timesteps', 'times drawn'], rows)}</details>"
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
    if speed := speeds(steps, window):
        plot = line_plot([Line("", speed, color(0))], last, "steps a second")
        plots.append(f"<div><h3>Speed, over the last {window} steps</h3>{plot}</div>")
    every = 1 + len(steps) // 200
    memory = [(float(s.step), s.memory_gb) for s in steps[::every] if s.memory_gb is not None]
    if memory:
        plot = line_plot([Line("", memory, color(1))], last, "GB")
        plots.append(f"<div><h3>Peak memory so far</h3>{plot}</div>")
    if not plots:
        return ""
    note = (
        "Time in steps alone, without previews, saving and this page. Memory is the GPU's, or the "
        "whole process's on a CPU; it begins anew when a run is resumed."
    )
    return (
        f'<h2>Speed and memory</h2><p class="note">{note}</p>'
        f'<div class="plots">{"".join(plots)}</div>'
    )
