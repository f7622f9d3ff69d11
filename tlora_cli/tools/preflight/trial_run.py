"""A trial of a recipe: two steps, a preview, saves and a resume in a folder that is removed.

The trial is the real command in a process of its own, so what it takes is what a run takes, and a
process that the system kills for want of memory is told from one that worked.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from tlora_cli.foundation import durations
from tlora_cli.foundation.devices import choose_device, is_accelerator
from tlora_cli.foundation.errors import Status, UserError
from tlora_cli.foundation.files import existing_parent, explained, writable, write_text
from tlora_cli.foundation.stopping import stoppable
from tlora_cli.recipe.defaults import merged
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import dump_recipe
from tlora_cli.tools.preflight.findings import Finding, gigabytes, ok, problem
from tlora_cli.tools.preflight.fitting import changed
from tlora_cli.training.checkpoint_files import STATE_FILE
from tlora_cli.training.execution import choose_execution
from tlora_cli.training.run_folder import RunFolder

STEPS = 2
FOLDER = ".tlora-trial-"
"""Start of the names of trial folders."""


@dataclass(frozen=True)
class Measured:
    """The cost of a trial.

    Attributes:
        start: seconds from the command to the first step.
        step: seconds of the second step; the first has to warm up.
        preview: seconds of one picture; None if the recipe has no previews.
        peak: bytes, of tensors on a GPU, or of the whole process on a CPU.
        before: of those, what the process took before a model was loaded; 0 on a GPU.
    """

    start: float
    step: float
    preview: float | None
    peak: int
    before: int


def trial_recipe(recipe: Recipe, folder: Path) -> Recipe:
    """Return the recipe of a trial: the same run, cut to two steps and one preview.

    Class pictures are cut to one, no checkpoint is scored, and no tracker elsewhere is told. How a
    step is run is what the whole run would choose.
    """
    train, concept = recipe.train, recipe.concept
    device = choose_device(train.device, train.precision, train.quantization)
    preview: dict[str, Any] = {}
    if train.preview is not None:
        preview = {"preview": {"every": 1, "count": 1, "prompts": train.preview.prompts[:1]}}
    short = changed(
        recipe,
        steps=STEPS,
        execution=choose_execution(recipe, device),
        checkpoint={"every": 1, "keep": STEPS},
        select="last",
        **preview,
    )
    assert short is not None
    data = short.model_dump(mode="json", by_alias=True)
    here = [name for name in recipe.output.trackers if name == "tensorboard"]
    data = merged(data, {"output": {"dir": str(folder), "trackers": here}})
    if concept.prior is not None:
        data["concept"]["prior"]["count"] = 1
    if concept.scenes is not None:
        data["concept"]["scenes"] |= {"count": 2, "each": 1, "untouched": 0.5}
    return Recipe.model_validate(data, by_alias=True, by_name=False)


def try_recipe(recipe: Recipe) -> Iterator[Finding]:
    """Run a trial and yield what it took, or why it failed. Nothing is left behind."""
    with _folder(writable(recipe.output.dir)) as folder:
        try:
            measured = _run_trial(trial_recipe(recipe, folder / "run"), folder)
        except UserError as error:
            text = f"{error.what}\n{error.where}" if error.where else error.what
            yield problem("trial", text, error.do, error.kind)
            return
    yield from _told(recipe, measured)


def _told(recipe: Recipe, measured: Measured) -> Iterator[Finding]:
    train, preview = recipe.train, recipe.train.preview
    whole = measured.start + train.steps * measured.step
    text = f"start {measured.start:.0f} s, a step {durations.measured(measured.step)}"
    if preview is not None and measured.preview is not None:
        times = (1 + -(-train.steps // preview.every)) * len(preview.prompts) * preview.count
        whole += times * measured.preview
        text += f", a preview {durations.measured(measured.preview)}"
    yield ok("trial", "trained, saved, resumed; the resumed steps gave the same weights")
    yield ok("time", f"{text}; the whole run about {durations.rounded(whole)}")
    if measured.before:
        own = measured.peak - measured.before
        yield ok(
            "memory",
            f"measured: {gigabytes(measured.peak)}, of which {gigabytes(measured.before)} the "
            f"program and {gigabytes(own)} the run",
        )
    else:
        yield ok("memory", f"measured: {gigabytes(measured.peak)} of tensors at the peak")


@contextmanager
def _folder(output: Path) -> Iterator[Path]:
    """Yield a new folder on the disk of the run; it is gone afterwards, whatever happens."""
    with stoppable(), explained(output):
        folder = Path(tempfile.mkdtemp(prefix=FOLDER, dir=existing_parent(output.parent)))
        try:
            yield folder.resolve()
        finally:
            shutil.rmtree(folder)


def _run_trial(recipe: Recipe, folder: Path) -> Measured:
    """Train, take the last step back, resume, and compare.

    Raises:
        UserError: if something fails, or the resumed run gives other weights.
    """
    run, file = RunFolder(folder / "run"), folder / "recipe.yaml"
    write_text(file, dump_recipe(recipe))
    began = time.time()
    tensorboard = "tensorboard" in recipe.output.trackers
    told = _command(folder, ["train", "--config", str(file)], tensorboard)
    measured = _measured(recipe, run, began, told)
    trained = load_file(run.adapter)
    run.adapter.unlink()
    shutil.rmtree(run.checkpoints / f"checkpoint-{STEPS:06d}")
    _command(folder, ["train", "--resume", "--output", str(run.path)], tensorboard)
    again = load_file(run.adapter)
    if any(not trained[name].equal(again[name]) for name in trained):
        raise UserError(
            "the resumed run gave other weights than the one that was not stopped",
            do="report this; until then, don't rely on --resume with this recipe",
        )
    return measured


def _on_gpu(recipe: Recipe) -> bool:
    train = recipe.train
    return is_accelerator(choose_device(train.device, train.precision, train.quantization))


def _measured(recipe: Recipe, run: RunFolder, began: float, told: str) -> Measured:
    lines = run.metrics.read_text("utf-8").splitlines()
    first, second = (json.loads(line) for line in lines)
    if _on_gpu(recipe):
        before, peak = 0, int(second["memory_gb"] * 1e9)  # two previews lie before it
    else:
        before, peak = map(int, re.findall(f"^{_MEMORY}(\\d+)$", told, re.MULTILINE))
    saved = (run.checkpoints / "checkpoint-000001" / STATE_FILE).stat().st_mtime
    preview = None
    if recipe.train.preview is not None:
        [picture] = (run.previews / "step-000001").glob("*.png")
        preview = picture.stat().st_mtime - saved
    start = saved - first["seconds"] - (preview or 0.0) - began  # a preview came before
    return Measured(start, second["seconds"] - first["seconds"], preview, peak, before)


_MEMORY = "bytes of this process: "
_PROGRAM = f"""
import sys
from tlora_cli.cli.quiet import hush_libraries
hush_libraries()
import torch
import tlora_cli.training.loop
from tlora_cli.foundation.devices import peak_memory
if sys.argv.pop(1) == "True":
    import torch.utils.tensorboard
def tell():
    print("{_MEMORY}", peak_memory(torch.device("cpu")), sep="", flush=True)
tell()
from tlora_cli.cli.app import main
status = main()
tell()
sys.exit(status)
"""
"""The command line, which tells its memory with all imported and nothing loaded, and at its end."""


def _command(folder: Path, words: list[str], tensorboard: bool) -> str:
    """Run a command of tlora in a process of its own; return what it said.

    Raises:
        UserError: if it fails; what it said is told.
    """
    return _python(folder, ["-c", _PROGRAM, str(tensorboard), *words])


def _python(folder: Path, words: list[str]) -> str:
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, *words], stdout=output, stderr=output)
        try:
            process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
    said = log.read_text("utf-8", errors="replace")
    if process.returncode:
        raise _failure(process.returncode, said)
    return said


def _failure(code: int, text: str) -> UserError:
    """Return what a failed command told."""
    if code < 0:
        name = signal.Signals(-code).name
        short = code == -signal.SIGKILL
        memory = "the system was out of memory; " if short else ""
        kind = Status.NO_ROOM if short else Status.FAULT
        return UserError(f"the trial was ended by {name}", "", f"{memory}see the plan above", kind)
    text = re.sub(f"^{_MEMORY}.*\n", "", text, flags=re.MULTILINE)
    told = text[text.rfind("error: ") :].removeprefix("error: ") if "error: " in text else text
    what, _, rest = told.strip().partition("\n  where: ")
    where, _, do = rest.partition("\n  fix:   ") if rest else ("", "", "")
    if not rest:
        what, _, do = what.partition("\n  fix:   ")
    kind = Status(code) if code in set(Status) else Status.FAULT
    return UserError(what or f"the trial ended with status {code}", where, do, kind)
