"""Draw with what was learned: the session of `tlora sample`, kept while its prompts stay."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.foundation.devices import memory_explained, release_memory
from tlora_cli.foundation.files import explained
from tlora_cli.sampling.draw import Job, save_picture
from tlora_cli.sampling.generate import filled_prompt
from tlora_cli.sampling.session import Request, SamplingSession
from tlora_cli.studio.values import MASK

Notify = Callable[[str], None]


@dataclass
class _Kept:
    """A session, and what it was made for: the file, its time of change, and its prompts."""

    key: tuple[str, int]
    prompts: frozenset[str]
    session: SamplingSession


_KEPT: list[_Kept] = []
"""The last session, so that other seeds and strengths need no loading."""


def draw_pictures(wishes: dict[str, Any], notify: Notify) -> list[str]:
    """Draw pictures into a folder and return their files.

    Args:
        wishes: `adapter` (file), `folder`, `prompts`, `seed` and `count` (seeds from the first on),
            `scale`, and `both`: whether each is drawn without the rank mask, too.
        notify: told what is loaded, and of each picture.

    Raises:
        UserError: for an adapter, base or prompt that doesn't fit.
    """
    with memory_explained("close other programs that use the card"):
        return _draw(wishes, notify)


def _draw(wishes: dict[str, Any], notify: Notify) -> list[str]:
    adapter, folder = Path(wishes["adapter"]), Path(wishes["folder"])
    request = Request(adapter, wishes["prompts"], folder)
    session, prompts = _session(request, notify)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
    written = []
    for prompt in prompts:
        for seed in range(wishes["seed"], wishes["seed"] + wishes["count"]):
            for masked in (True, False) if wishes["both"] else (True,):
                jobs = [Job(prompt, seed)]
                for job, picture in session.draw(jobs, wishes["scale"], 1, masked=masked):
                    about = session.describe(**{MASK: masked})
                    file = save_picture(folder, job, picture, session.settings, about)
                    written.append(str(file))
                    notify(str(file))
    return written


def _session(request: Request, notify: Notify) -> tuple[SamplingSession, list[str]]:
    """Return a session that knows the prompts, and these with the concept filled in.

    Encoders are freed before the denoiser is loaded, so other prompts take a new session.
    """
    key = str(request.adapter), request.adapter.stat().st_mtime_ns
    kept = _KEPT[0] if _KEPT else None
    if kept is not None and kept.key == key:
        prompts = [filled_prompt(p, kept.session, request) for p in request.prompts]
        if kept.prompts >= set(prompts):
            return kept.session, prompts
    _KEPT.clear()
    del kept
    gc.collect()  # pipelines hold themselves
    release_memory()
    session = SamplingSession(request, notify)
    prompts = list(dict.fromkeys(filled_prompt(p, session, request) for p in request.prompts))
    session.prepare(prompts)
    _KEPT.append(_Kept(key, frozenset(prompts), session))
    return session, prompts
