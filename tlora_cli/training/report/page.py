"""The report of a run: one HTML file that needs nothing else, a function of its folder alone."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from tlora_cli.foundation.durations import clock
from tlora_cli.foundation.pages.templates import render
from tlora_cli.training.report import curves
from tlora_cli.training.report.reading import Run
from tlora_cli.training.report.scores import scores_section
from tlora_cli.training.report.verdict import verdict
from tlora_cli.training.run_folder import step_of

TINY = 128
"""Pictures up to this resolution keep their pixels when they are shown larger."""


def page(run: Run) -> str:
    """Return the page of a run."""
    concept, adapter = run.recipe.concept, run.recipe.adapter
    headline = f"{concept.words}: {adapter.method} on {run.recipe.base.model}"
    said, previewed = verdict(run), sorted({one.step for one in run.previews})
    prompt = concept.prompt.replace("{placeholder}", concept.placeholder)
    sections = [
        scores_section(run),
        curves.copying_section(run),
        curves.loss_section(run),
        curves.rank_section(run),
        curves.cost_section(run),
    ]
    return render(
        "training/report/page.html.jinja",
        title=f"{headline} ({run.path.name})",
        headline=headline,
        run=run,
        step=run.metrics.steps[-1].step if run.metrics.steps else 0,
        verdict=said,
        facts=_facts(run),
        prompt=prompt.replace("{class}", concept.class_name),
        tiny=run.recipe.train.resolution <= TINY,
        previewed=previewed,
        begins=0 in previewed,
        chosen=previewed.index(said.step) if said.step in previewed else len(previewed) - 1,
        strips=_strips(run, previewed),
        sections=sections,
        commands=_commands(run),
    )


def _facts(run: Run) -> dict[str, str]:
    """Return the numbers of the whole run."""
    steps = run.metrics.steps
    last = steps[-1] if steps else None
    facts: dict[str, str] = {}
    if last and last.seconds is not None:
        facts["time in steps"] = clock(last.seconds)
        if last.seconds > 0:
            facts["mean speed"] = f"{last.step / last.seconds:.2f} steps/s"
    if memory := [one.memory_gb for one in steps if one.memory_gb is not None]:
        facts["peak memory"] = f"{max(memory):.2f} GB"
    if isinstance(parameters := run.about.get("parameters"), int):
        facts["trained parameters"] = f"{parameters:,}"
    if isinstance(device := run.about.get("device"), str):
        facts["device"] = device
    if run.metrics.written is not None:
        moment = time.gmtime(run.metrics.written)
        facts["metrics last written"] = time.strftime("%Y-%m-%d %H:%M UTC", moment)
    return facts


def _strips(run: Run, steps: Sequence[int]) -> dict[tuple[str, str], dict[str, str]]:
    """Return of each prompt and seed a picture's address for each step, empty if there is none."""
    columns = [f"step {step}" for step in steps]
    found: dict[tuple[str, str], dict[str, str]] = {}
    for one in run.previews:
        strip = found.setdefault((one.prompt, one.seed), dict.fromkeys(columns, ""))
        strip[f"step {one.step}"] = one.seen.url
    return found


def _commands(run: Run) -> dict[str, str]:
    """Return what can be done next, and the command for it."""
    folder = shlex.quote(str(run.path))
    commands = {}
    if run.adapter:
        which = ""
        if run.adapter.parent != run.path:
            which = f" (the checkpoint of step {step_of(run.adapter.parent)})"
        commands[f"Draw with the adapter{which}"] = (
            f"tlora sample --adapter {shlex.quote(str(run.adapter))} "
            '--prompt "a photo of a V* in the snow"'
        )
    resume = f"tlora train --resume --output {folder}"
    if run.state != "finished":
        commands["Go on after a stop"] = resume
    elif run.recipe.train.lr_schedule.name == "constant":
        more = run.recipe.train.steps * 2
        commands["Train the same run for longer"] = f"{resume} --set train.steps={more}"
    return {**commands, "Make this page again": f"tlora report {folder}"}
