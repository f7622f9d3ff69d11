"""Runs that are killed: at any moment, between the steps of a save, in the midst of a write.

A sitting is `tlora train` in a process forked from this one, where everything is imported. It kills
itself with SIGKILL, which nothing can catch, at a moment that is a function of a seed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tlora_cli.cli.app import main
from tlora_cli.formats import read_adapter
from tlora_cli.formats.pickles import check_archive
from tlora_cli.foundation import files
from tlora_cli.recipe.reading import load_recipe
from tlora_cli.training import loop  # noqa: F401  (imported before the fork, not after each)
from tlora_cli.training.run_folder import RunFolder, checkpoints

OPERATIONS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate")
"""Audit events of what a run does in its folder."""
KINDS = ("operation", "saving", "torn", "time")
PRODIGY = {
    "optimizer": {"name": "prodigy"},
    "accumulation": 2,
    "max_grad_norm": 1.0,
    "lr_schedule": {"name": "cosine", "warmup_steps": 2},
}
ADAMW = {"optimizer": {"name": "adamw", "lr": 1e-3}}
PREVIEW = {"preview": {"every": 3, "prompts": ["a V*"]}}
AVERAGE = {"ema": {"decay": 0.9}}

RUNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sdxl tlora adamw": ("sdxl", {"rank": 4, "min_rank": 2}, {**ADAMW, **PREVIEW, **AVERAGE}),
    "flux tlora prodigy": ("flux", {"rank": 4, "min_rank": 2}, PRODIGY),
    "sdxl ortho_lora prodigy": ("sdxl", {"method": "ortho_lora", "rank": 4}, PRODIGY),
    "flux lora adamw": ("flux", {"method": "lora", "rank": 2}, {**ADAMW, **PREVIEW}),
    "sdxl oft adamw": ("sdxl", {"method": "oft", "blocks": 4}, {**ADAMW, **AVERAGE}),
    "sdxl textual_inversion prodigy": ("sdxl", {"method": "textual_inversion"}, PRODIGY),
}
"""Name -> family, adapter and train sections of a short run."""


@dataclass(frozen=True)
class Moment:
    """The moment at which a sitting is killed.

    Attributes:
        kind: `operation`: before any file operation in the run folder. `saving`: before one on a
            checkpoint. `torn`: in the midst of a write, with part of the file on the disk. `time`:
            after a share of the time of a whole run.
        share: which, from 0 to 1 of all there are in a whole run.
    """

    kind: str
    share: float

    def __str__(self) -> str:
        """Return it in a few characters."""
        return f"{self.kind} {self.share:.3f}"


@dataclass(frozen=True)
class Whole:
    """A run that nothing disturbed.

    Attributes:
        tensors: of its adapter.
        metrics: its steps, without what depends on the time.
        previews: file -> pixels.
        counts: kind of moment -> how many there were; of `time`, the seconds.
    """

    tensors: Mapping[str, Tensor]
    metrics: list[dict[str, Any]]
    previews: Mapping[str, np.ndarray]
    counts: Mapping[str, float]


def write_recipe(name: str, bases: Mapping[str, Path], folder: Path) -> Path:
    """Write the recipe of a run in folder/run; return its file."""
    family, adapter, train = RUNS[name]
    picture = folder / "photo.png"
    small = np.random.default_rng(0).integers(0, 255, (6, 6, 3)).astype(np.uint8)
    Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(picture)
    file = folder / "recipe.yaml"
    common = {"steps": 6, "resolution": 64, "precision": "fp32", "device": "cpu"}
    recipe = {
        "family": family,
        "base": str(bases[family]),
        "concept": {"images": str(picture), "class": "dog"},
        "adapter": adapter,
        "train": {**common, "checkpoint": {"every": 2, "keep": 2}, **train},
        "sampling": {"steps": 1},
        "output": {"dir": str(folder / "run"), "trackers": []},
    }
    file.write_text(json.dumps(recipe))
    return file


def sit(arguments: list[str], folder: Path, moment: Moment | None, whole: Whole | None) -> int:
    """Run `tlora` in a forked process; return its exit status, negative for a signal.

    Args:
        arguments: of the command line.
        folder: of the run; what it says is added to folder.log, and without a moment the number
            of its operations goes to folder.counts.
        moment: when to kill it, or None to let it end.
        whole: the same run undisturbed, if there is a moment.
    """
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = _work(arguments, folder, moment, whole)
        finally:
            os._exit(status)
    if moment is not None and whole is not None and moment.kind == "time":
        time.sleep(moment.share * whole.counts["time"])
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _work(arguments: list[str], folder: Path, moment: Moment | None, whole: Whole | None) -> int:
    log = os.open(f"{folder}.log", os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    counter = _Counter(folder, moment, whole)
    sys.addaudithook(counter.heard)
    real = files.sync

    def sync(path: Path) -> None:
        counter.synced(path)
        real(path)

    files.sync = sync
    sys.argv = ["tlora", *arguments]
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if moment is None:
        Path(f"{folder}.counts").write_text(json.dumps(counter.counts))
    return status


class _Counter:
    """Counts what a sitting does, and kills it when its moment has come."""

    def __init__(self, folder: Path, moment: Moment | None, whole: Whole | None) -> None:
        self.counts = {"operation": 0, "saving": 0, "torn": 0}
        self._folder = str(folder)
        self._kind = "" if moment is None else moment.kind
        self._last = (
            0 if moment is None or whole is None else moment.share * whole.counts[moment.kind]
        )
        self._share = 0.0 if moment is None else moment.share

    def heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Be told of an audit event, before it happens."""
        if event not in OPERATIONS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        path = os.fsdecode(arguments[0])
        if not path.startswith(self._folder):
            return
        if path.startswith((f"{self._folder}.log", f"{self._folder}.counts")):
            return
        self._count("operation")
        if "checkpoint" in path.removeprefix(self._folder):
            self._count("saving")

    def synced(self, path: Path) -> None:
        """Be told of a file that was written and will be made safe, then renamed."""
        if self._count("torn", end=False):
            if path.is_file():
                whole = path.stat().st_size
                # Another share of it each time: nothing, some, all but a little.
                os.truncate(path, int(whole * (self._share * 7919 % 1)))
            os.kill(os.getpid(), signal.SIGKILL)

    def _count(self, kind: str, end: bool = True) -> bool:
        now = kind == self._kind and self.counts[kind] == int(self._last)
        self.counts[kind] += 1
        if now and end:
            os.kill(os.getpid(), signal.SIGKILL)
        return now


def run_whole(name: str, bases: Mapping[str, Path], folder: Path) -> Whole:
    """Run undisturbed, and see what comes out."""
    folder.mkdir(parents=True)
    began = time.monotonic()
    status = sit(
        ["train", "--config", str(write_recipe(name, bases, folder))], folder / "run", None, None
    )
    seconds = time.monotonic() - began
    assert status == 0, (folder / "run.log").read_text()
    counts = json.loads((folder / "run.counts").read_text())
    run = RunFolder(folder / "run")
    return Whole(load_file(run.adapter), _metrics(run), _previews(run), {**counts, "time": seconds})


def kill_and_resume(
    name: str, bases: Mapping[str, Path], folder: Path, moments: list[Moment], whole: Whole
) -> str:
    """Kill a run's sittings at the moments, let the last one end, and compare all that is there.

    Returns:
        What was seen: the last checkpoint after each kill.

    Raises:
        AssertionError: if anything was lost, or anything differs.
    """
    folder.mkdir(parents=True)
    config = write_recipe(name, bases, folder)
    run, seen = RunFolder(folder / "run"), []
    told = Path(f"{run.path}.log")
    for moment in (*moments, None):
        resumes = run.recipe.exists()
        command = ["train", "--resume", "--output", str(run.path)]
        arguments = command if resumes else ["train", "--config", str(config)]
        status = sit(arguments, run.path, moment, whole)
        # A later sitting has less to do than a whole run, so its moment may never come.
        assert status in ((0,) if moment is None else (0, -signal.SIGKILL)), told.read_text()
        seen.append(f"{check_what_is_left(run)} {'ended' if status == 0 else moment}")
    words = told.read_text()
    assert "Traceback" not in words and "can't be" not in words, words
    tensors = load_file(run.adapter)
    assert tensors.keys() == whole.tensors.keys()
    differing = [key for key in tensors if not torch.equal(tensors[key], whole.tensors[key])]
    assert not differing, f"{differing[:3]} differ"
    assert _metrics(run) == whole.metrics, "the metrics differ"
    previews = _previews(run)
    assert previews.keys() == whole.previews.keys(), sorted(previews)
    assert all(np.array_equal(previews[key], whole.previews[key]) for key in previews)
    left = [path for path in run.path.rglob("*") if path.name.startswith(".tlora-unfinished-")]
    assert not left, left
    assert run.report.read_text().endswith("</html>\n") or "</html>" in run.report.read_text()
    return ", ".join(seen)


def check_what_is_left(run: RunFolder) -> str:
    """Read all that a killed run left; return the name of the last checkpoint.

    Raises:
        Exception: if anything is half a file.
    """
    found = checkpoints(run.checkpoints)
    for path in found:
        check_archive(path / "training_state.pt")
        saved = torch.load(path / "training_state.pt", weights_only=True)
        assert path.name == f"checkpoint-{saved['step']:06d}"
        assert read_adapter(path, ()).family  # with the start beside it
    if run.recipe.exists():
        load_recipe(run.recipe)
        json.loads(run.about.read_text())
    if run.adapter.exists():
        assert load_file(run.adapter) and found
    for picture in run.previews.glob("step-*/*.png"):
        with Image.open(picture) as opened:
            opened.load()
    if run.metrics.exists():
        *whole, _ = run.metrics.read_text().split("\n")  # the last line may be cut
        assert [json.loads(line)["step"] for line in whole] == list(range(1, len(whole) + 1))
    return found[-1].name if found else "no checkpoint"


def _metrics(run: RunFolder) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    return [{k: v for k, v in one.items() if k not in ("seconds", "memory_gb")} for one in lines]


def _previews(run: RunFolder) -> dict[str, np.ndarray]:
    found = {}
    for path in sorted(run.previews.rglob("*.png")):
        with Image.open(path) as picture:
            found[path.relative_to(run.previews).as_posix()] = np.asarray(picture)
    return found


def moments_of(seed: int, number: int) -> tuple[str, list[Moment]]:
    """Return the run of a case and its moments: one, or now and then two in a row."""
    chance = random.Random(f"{seed} kill {number}")
    name = list(RUNS)[number % len(RUNS)]
    # Half of the kills hit a save.
    kinds = random.Random(f"{seed} {number}").choices(KINDS, (3, 4, 3, 2), k=2)
    count = 2 if chance.random() < 0.25 else 1
    return name, [Moment(kind, chance.random()) for kind in kinds[:count]]


def kill_all(
    numbers: range, seed: int, bases: Mapping[str, Path], folder: Path, say: Callable[[str], None]
) -> int:
    """Run cases; return how many kills there were.

    Raises:
        AssertionError: at the first case where anything was lost or differs.
    """
    wholes: dict[str, Whole] = {}
    kills = 0
    for number in numbers:
        name, moments = moments_of(seed, number)
        if name not in wholes:
            wholes[name] = run_whole(name, bases, folder / f"whole-{len(wholes)}")
        seen = kill_and_resume(name, bases, folder / f"case-{number}", moments, wholes[name])
        kills += len(moments)
        say(f"{number}: {name}: {seen}")
    return kills
