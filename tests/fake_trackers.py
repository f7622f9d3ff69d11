"""Stand-ins for wandb and trackio that write down what they are told."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import pytest

# A package that writes a line of JSON for each call; what it does beside is filled in.
CALLS = """
import json
from pathlib import Path
from types import SimpleNamespace

def told(**call):
    with Path({log!r}).open("a") as file:
        file.write(json.dumps(call) + "\\n")

class Image:
    def __init__(self, file, caption):
        self.file, self.caption = str(file), caption

def plain(values):
    if isinstance(values, Image):
        assert Path(values.file).read_bytes().startswith(b"\\x89PNG")
        return [values.file, values.caption]
    if isinstance(values, dict):
        return {{key: plain(value) for key, value in values.items()}}
    return [plain(value) for value in values] if isinstance(values, list) else values

class Run:
    step = {step}
    config = SimpleNamespace(update=lambda values, **options: None)

    def log(self, values, step):
        told(what="log", step=step, values=plain(values))

    def finish(self):
        told(what="finish")

def init(**options):
    options.pop("settings", None)
    told(what="init", **options)
    {on_init}
    return Run()
"""


WANDB = """
class Settings:
    mode = {mode!r}
    def __init__(self, **options):
        pass

def setup(settings):
    return SimpleNamespace(settings=settings)

def login(prompt, verify):
    assert not prompt and not verify
    return {logged_in}

def teardown():
    told(what="teardown")
"""


class Fakes:
    """The two packages, in a folder of their own on the path."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        folder.mkdir()
        monkeypatch.syspath_prepend(str(folder))

    def install(
        self,
        name: str,
        on_init: str = "pass",
        step: int = 0,
        logged_in: bool = True,
        mode: str = "online",
    ) -> None:
        """Put a package there; one that was imported before is forgotten."""
        package = self.folder / name
        package.mkdir(exist_ok=True)
        code = CALLS.format(log=str(self.folder / f"{name}.jsonl"), on_init=on_init, step=step)
        if name == "wandb":
            (package / "errors.py").write_text("class Error(Exception):\n    pass\n")
            code += WANDB.format(mode=mode, logged_in=logged_in)
        (package / "__init__.py").write_text(code)
        for known in [one for one in sys.modules if one.partition(".")[0] == name]:
            del sys.modules[known]
        importlib.invalidate_caches()
        sys.path_importer_cache.clear()

    def calls(self, name: str) -> list[dict[str, Any]]:
        """Return how it was called since the last time of asking."""
        file = self.folder / f"{name}.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return [json.loads(line) for line in lines]
