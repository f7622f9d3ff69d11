"""Pages of scored adapters made of the renderer's own drawings: no model is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tlora_cli.foundation.bundled import version_of
from tlora_cli.foundation.files import write_text
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.judge import UNREADABLE
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.report_page import page
from tlora_cli.toyworld.scored import Scored, hits_of
from tlora_cli.toyworld.scores import Rate, identity_right, leaked, prompted_right, rate
from tlora_cli.toyworld.studio import Drawn
from tlora_cli.toyworld.suites import Task, base_prompt, contexts

LUNA = CONCEPTS["luna"]
TRAINING = LUNA.scenes()[0]
TASKS = [*contexts(LUNA, 7, TRAINING), *base_prompt(LUNA, 1)]
ABOUT = {
    "base": "toy-sdxl",
    "version": version_of("toy-sdxl"),
    "concept": "luna",
    "picture": 1,
    "seed": 0,
    "prompts": [task.text for task in TASKS],
    "count": 7,
}


def drawn(task: Task, mistake: str) -> Drawn:
    """Return a picture that is right, lacks something, shows another place, or is smeared."""
    changes = {"lacking": {"feature": "none"}, "elsewhere": {"background": "city"}}
    scene = TRAINING.changed(**{**task.asked, **changes.get(mistake, {})})
    read = dict.fromkeys(scene.values, UNREADABLE) if mistake == "smeared" else scene.values
    return Drawn(task, draw(scene).image, dict(read))


def adapter(name: str, mistakes: Sequence[str], steps: Sequence[int] = (0, 100, 200)) -> Scored:
    """Return an adapter that makes these mistakes in turn, and more of them at earlier steps."""
    frames = {
        step: [
            drawn(task, "smeared" if step == 0 else mistakes[n % len(mistakes)])
            for n, task in enumerate(TASKS)
        ]
        for step in steps
    }
    placed = frames[steps[-1]][:-1]
    pairs = [(one.reading, one.task.asked) for one in placed]
    hits = hits_of(placed, LUNA)
    alike = rate([identity_right(reading, LUNA.values) for reading, _ in pairs])
    rates = {
        "S*": rate(hits),
        "TS*": rate([prompted_right(*one) for one in pairs]),
        "ID*": alike,
        "ID* base prompt": Rate(1, 1),
        "details": alike,
        "leak": rate([leaked(*one, TRAINING.values) for one in pairs]),
        "copy": Rate(0, len(placed)),
    }
    return Scored(name, rates, hits, frames)


def write_page(folder: Path, scored: Sequence[Scored], command: str = "") -> Path:
    """Write the page of scored adapters."""
    file = folder / "index.html"
    write_text(file, page(LUNA, TRAINING, "toy-sdxl", scored, command))
    return file
