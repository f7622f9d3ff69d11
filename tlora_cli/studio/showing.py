"""The studio as the page shows it, as plain data."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tlora_cli.studio import processes
from tlora_cli.studio.drafts import Draft, find_draft
from tlora_cli.studio.exports import TARGETS, command_of, output_of
from tlora_cli.studio.jobs import Jobs
from tlora_cli.studio.progress import drawings, progress
from tlora_cli.training.run_folder import RunFolder

SAMPLES = Path("samples")
"""Folder of what is drawn, in the folder that the studio was started in."""


def line(name: str, folder: Path) -> dict[str, Any]:
    """Return the name and the state of a work, as plain data."""
    run = RunFolder(folder)
    if processes.is_alive(name, folder):
        state = "running"
    elif run.recipe.is_file():
        state = "finished" if run.adapter.is_file() else "stopped"
    else:
        state = "draft"
    return {"name": name, "state": state}


def shown(name: str, folder: Path, jobs: Jobs) -> dict[str, Any]:
    """Return all that the page shows of a work, as plain data.

    Args:
        name: of the draft or run.
        folder: of the run.
        jobs: what computes, and what failed of it.
    """
    draft = find_draft(name)
    begun = RunFolder(folder).holds_run() or processes.is_alive(name, folder)
    failed = processes.failure_of(name) if draft and draft.run and not begun else ""
    return {
        "name": name,
        "draft": _told(draft) if draft else None,
        "run": progress(name, folder) if begun else None,
        "failed": failed,
        "drawings": drawings(SAMPLES / name),
        "exports": _exports(name, folder) if begun else [],
        "errors": {
            task: job.told()["error"]
            for (task, of), job in jobs.last.items()
            if of == name and job.error
        },
    }


def _exports(name: str, folder: Path) -> list[dict[str, Any]]:
    found = []
    finished = line(name, folder)["state"] == "finished"
    for key, target in TARGETS.items():
        output = output_of(name, key)
        files = sorted(one for one in output.rglob("*") if one.is_file())
        files = files or ([output] if output.is_file() else [])
        found.append(
            {
                "target": key,
                "title": target.title,
                "about": target.about,
                "ready": finished or target.format is not None,
                "output": str(output),
                "command": shlex.join(command_of(key, str(folder), output)),
                "files": [{"path": one.as_posix(), "bytes": one.stat().st_size} for one in files],
            }
        )
    return found


def _told(draft: Draft) -> dict[str, Any]:
    """Return a draft as the page shows it."""
    plan = draft.plan if draft.plan.get("wishes") == draft.wishes else None
    mask = draft.shown_mask
    return {
        **asdict(draft),
        "plan": plan,
        "has_mask": mask is not None,
        "mask_version": 0 if mask is None else mask.stat().st_mtime_ns // 1000,
        "photo_version": draft.photo.stat().st_mtime_ns // 1000,
        "uses_mask": draft.uses_mask,
    }
