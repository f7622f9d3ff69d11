"""The report of a run: one HTML file that needs nothing else, a function of its folder alone."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence

from tlora_cli.foundation.durations import clock
from tlora_cli.foundation.pages import document, img, table, text
from tlora_cli.training.report import curves
from tlora_cli.training.report.reading import Preview, Run
from tlora_cli.training.report.scores import scores_section
from tlora_cli.training.run_folder import step_of

TINY = 128
"""Pictures up to this resolution keep their pixels when they are shown larger."""

_STYLE = """
.state { display: inline-block; padding: .1rem .7rem; border-radius: 1rem; font-weight: 600;
  border: 1px solid currentColor; font-size: .9rem; }
.finished { color: var(--good); } .stopped { color: var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .8rem;
  margin: 1rem 0; }
.facts div { background: var(--soft); border-radius: 6px; padding: .5rem .8rem; }
.facts dt { font-size: .8rem; opacity: .75; } .facts dd { margin: 0; font-weight: 600;
  overflow-wrap: anywhere; }
.learned { display: flex; flex-wrap: wrap; gap: 1rem; }
.learned figure { margin: 0; max-width: 100%; } figcaption { font-size: .8rem; opacity: .8; }
.learned img { width: 10rem; max-width: 100%; height: auto; border-radius: 6px; display: block; }
.sheet td small { font-size: .78rem; opacity: .8; }
.plots > div { min-width: 0; } .plots h3 { margin: .6rem 0 .2rem; }
.line { fill: none; stroke: var(--c); stroke-width: 2.2; stroke-linejoin: round; }
.line.thin { stroke-width: 1.3; opacity: .75; } .one { fill: var(--c); }
.dots { fill: var(--c); opacity: .28; }
.mark { stroke: currentColor; stroke-dasharray: 4 4; opacity: .6; }
.bar { fill: currentColor; opacity: .22; } .bar.solid { fill: #0072b2; opacity: .8; }
pre { margin: .4rem 0; padding: .7rem .9rem; background: var(--soft); border-radius: 6px;
  font: 13px/1.5 ui-monospace, monospace; overflow-x: auto; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .6rem 0; } summary { cursor: pointer; font-size: .9rem; }
.notes { font-size: .9rem; padding-left: 1.2rem; }
@media (max-width: 40rem) { .plot text { font-size: 19px; } .learned img { width: 8rem; } }
"""


def page(run: Run) -> str:
    """Return the page of a run."""
    concept, adapter = run.recipe.concept, run.recipe.adapter
    name = f"{concept.placeholder} {concept.class_name}"
    title = f"{name}: {adapter.method} on {run.recipe.base.model}"
    parts = [
        f"<h1>{text(title)}</h1>",
        _state(run),
        _facts(run),
        _notes(run),
        _learned(run),
        _filmstrip(run),
        scores_section(run),
        curves.copying_section(run),
        curves.loss_section(run),
        curves.rank_section(run),
        curves.cost_section(run),
        _commands(run),
        _recipe(run),
        _versions(run),
    ]
    return document(f"{title} ({run.path.name})", "\n".join(filter(None, parts)), _STYLE)


def _state(run: Run) -> str:
    steps = run.recipe.train.steps
    done = f"{run.metrics.steps[-1].step if run.metrics.steps else 0} of {steps} steps"
    note = {
        "running": "It was running when this page was written. A run that was killed since says "
        "so, too, until the page is made again.",
        "finished": "",
        "stopped": "It ended before its last step; the command to go on is below.",
    }[run.state]
    note = f'<p class="note">{note}</p>' if note else ""
    return f'<p><span class="state {run.state}">{run.state}</span> {text(done)}</p>{note}'


def _facts(run: Run) -> str:
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
    items = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in facts.items()
    )
    return f'<dl class="facts">{items}</dl>' if items else ""


def _notes(run: Run) -> str:
    items = "".join(f"<li>{text(note)}</li>" for note in run.notes)
    return f'<ul class="notes">{items}</ul>' if items else ""


# --- pictures -------------------------------------------------------------------------------------


def _kind(run: Run) -> str:
    return "tiny" if run.recipe.train.resolution <= TINY else ""


def _learned(run: Run) -> str:
    """Return the training pictures, each beside its mask."""
    if not run.pictures:
        return ""
    figures = []
    for number, (picture, mask) in enumerate(run.pictures, 1):
        figures.append(_figure(picture.url, f"training picture {number}", "as cropped"))
        if mask:
            figures.append(_figure(mask.url, f"mask {number}", "mask: the loss counts where white"))
    concept = run.recipe.concept
    said = concept.prompt.replace("{placeholder}", concept.placeholder)
    said = said.replace("{class}", concept.class_name)
    return (
        f"<h2>Learned from</h2><p>Prompt: {text(said)}</p>"
        f'<div class="learned {_kind(run)}">{"".join(figures)}</div>'
    )


def _figure(url: str, alt: str, caption: str) -> str:
    return f"<figure>{img(url, alt)}<figcaption>{text(caption)}</figcaption></figure>"


def _filmstrip(run: Run) -> str:
    """Return a line for each prompt and seed, a column for each step."""
    if not run.previews:
        return ""
    steps = sorted({one.step for one in run.previews})
    heads = ["prompt, seed", *(f"step {step}" for step in steps)]
    rows = []
    for (prompt, seed), strip in strips(run.previews).items():
        by_step = {one.step: one for one in strip}
        cells = [
            img(by_step[step].seen.url if step in by_step else "", f"step {step}: {prompt}")
            for step in steps
        ]
        rows.append((f"{text(prompt)}<br><small>seed {text(seed)}</small>", cells))
    note = "Each line has one prompt and one noise, drawn after more and more steps."
    return f'<h2>Previews</h2><p class="note">{note}</p>' + table(
        heads, rows, f"sheet {_kind(run)}"
    )


def strips(previews: Sequence[Preview]) -> dict[tuple[str, str], list[Preview]]:
    """Return the previews of each prompt and seed, by step."""
    found: dict[tuple[str, str], list[Preview]] = {}
    for one in previews:
        found.setdefault((one.prompt, one.seed), []).append(one)
    return found


# --- text -----------------------------------------------------------------------------------------


def _commands(run: Run) -> str:
    folder = shlex.quote(str(run.path))
    parts = ["<h2>Commands</h2>"]
    if run.adapter:
        which = ""
        if run.adapter.parent != run.path:
            which = f" (the checkpoint of step {step_of(run.adapter.parent)})"
        parts.append(
            f"<p>Draw with the adapter{which}:</p>"
            + _command(
                f"tlora sample --adapter {shlex.quote(str(run.adapter))} "
                '--prompt "a photo of a V* in the snow"'
            )
        )
    resume = f"tlora train --resume --output {folder}"
    constant = run.recipe.train.lr_schedule.name == "constant"
    if run.state != "finished":
        parts.append(f"<p>Go on after a stop:</p>{_command(resume)}")
    elif constant:
        more = run.recipe.train.steps * 2
        parts.append(
            "<p>Train the same run for longer:</p>" + _command(f"{resume} --set train.steps={more}")
        )
    parts.append(f"<p>Make this page again:</p>{_command(f'tlora report {folder}')}")
    return "".join(parts)


def _command(line: str) -> str:
    return f'<pre class="command">{text(line)}</pre>'


def _recipe(run: Run) -> str:
    return f"<h2>Recipe</h2><pre>{text(run.recipe_text)}</pre>"


def _versions(run: Run) -> str:
    versions = run.about["versions"]
    if not versions:
        return ""
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"<h2>Versions</h2><p>{text(said)}</p>"
