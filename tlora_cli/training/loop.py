"""The training loop: checkpoints, previews, interruption."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from tlora_cli.foundation.devices import (
    FILE_DTYPES,
    device_name,
    memory_explained,
    peak_memory,
)
from tlora_cli.foundation.environment import without_launchers
from tlora_cli.foundation.files import locked, remove_leftovers, require_free, writable
from tlora_cli.foundation.pictures import save_png
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.words import check_words, word_doubts
from tlora_cli.training.acceleration import make_accelerator
from tlora_cli.training.assemble import make_choosing, make_previews, make_step
from tlora_cli.training.average import Average
from tlora_cli.training.disk_space import disk_space
from tlora_cli.training.display import Display
from tlora_cli.training.interruption import Interruption
from tlora_cli.training.kept_images import keep_pictures
from tlora_cli.training.metrics import MetricsFile, Pending, StepRecord, record_of
from tlora_cli.training.optimizers import make_optimizer
from tlora_cli.training.prepare import prepare
from tlora_cli.training.report.live import RunReports
from tlora_cli.training.run_folder import RunFolder, disk_explained
from tlora_cli.training.state import Checkpoints, TrainingState
from tlora_cli.training.trackers.background import Trackers
from tlora_cli.training.trackers.base import tracked_run

OUT_OF_MEMORY = (
    "set train.gradient_checkpointing: true, then train.quantization: nf4 or a smaller "
    "train.resolution; close other programs on the GPU"
)


@dataclass(frozen=True)
class Outcome:
    """The end of a run.

    Attributes:
        adapter: the adapter file, or None if the run was interrupted.
        step: the last one that was made.
        signal: the number of the signal that interrupted it, if one did.
    """

    adapter: Path | None
    step: int
    signal: int | None = None


def train(
    recipe: Recipe,
    resume: bool = False,
    console: Console | None = None,
    watch: Callable[[StepRecord], None] | None = None,
) -> Outcome:
    """Train an adapter; the result is `adapter.safetensors` in the recipe's output.dir.

    Args:
        recipe: the whole run.
        resume: continue the run in output.dir; a run interrupted at any moment ends with the same
            weights as one left alone, on the same machine.
        console: where progress is shown.
        watch: told each step once its loss is known, in place of lines on the console.

    Raises:
        UserError: for anything the user can mend; nothing of an earlier run is overwritten.
    """
    console = console or Console(stderr=True)
    with without_launchers(
        lambda text: console.print(text, highlight=False, markup=False, soft_wrap=True)
    ):
        return _train_alone(recipe, resume, console, watch)


def _train_alone(
    recipe: Recipe, resume: bool, console: Console, watch: Callable[[StepRecord], None] | None
) -> Outcome:
    run = RunFolder(writable(recipe.output.dir))
    require_free(run.path)  # else a live run would be told of as one to resume
    run.check(recipe, resume)  # before anything is touched, even the lock
    if not run.holds_run():
        check_words(recipe)
    reports = RunReports(run, lambda text: console.print(text, highlight=False, soft_wrap=True))
    try:
        with locked(run.path), memory_explained(OUT_OF_MEMORY), disk_explained(run):
            for folder in (
                run.path,
                run.checkpoints,
                run.previews,
                run.training_pictures,
                run.masks,
            ):
                remove_leftovers(folder)
            run.check(recipe, resume)
            for doubt in word_doubts(recipe):
                console.print(f"warning: {doubt}", highlight=False, markup=False, soft_wrap=True)
            if run.finished(recipe):
                console.print(f"this run is already complete: {run.adapter}", highlight=False)
                return Outcome(run.adapter, recipe.train.steps)
            return TrainingLoop(recipe, run, console, reports, watch).run()
    finally:
        reports.end()  # the folder is free, so the report says that the run has ended


@dataclass(frozen=True)
class _Outputs:
    """The place where finished steps are logged."""

    metrics: MetricsFile
    trackers: Trackers
    display: Display
    watch: Callable[[StepRecord], None]

    def log(self, record: StepRecord) -> None:
        """Log a step."""
        self.metrics.write(record)
        self.trackers.log(record)
        self.watch(record)


class TrainingLoop:
    """The loop of a run, from its last checkpoint to its end or to an interruption.

    Args:
        recipe: of the run.
        folder: of the run.
        console: where progress is shown.
        reports: keep the run's page.
        watch: told each step; None for the display.

    Attributes:
        ready: models and data.
        step: one training step.
        state: all that a step changes.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        console: Console,
        reports: RunReports,
        watch: Callable[[StepRecord], None] | None = None,
    ) -> None:
        self.recipe, self.folder, self.console, self.reports = recipe, folder, console, reports
        self._watch = watch
        train, output = recipe.train, recipe.output
        accelerator = make_accelerator(train, output.trackers)
        self.ready = prepare(recipe, folder, self._notify)
        adapter = self.ready.models.adapter
        self.optimizer = accelerator.prepare(
            make_optimizer(train.optimizer, adapter.parameter_groups())
        )
        self.state = TrainingState(
            adapter,
            self.optimizer,
            accelerator.scaler,
            self.ready.data.digest,
            average=Average(adapter, train.ema.decay) if train.ema else None,
        )
        self.step = make_step(
            recipe,
            self.ready,
            self.optimizer,
            backward=accelerator.backward,  # divides by the accumulation
            clip=accelerator.clip_grad_norm_,
        )
        self.checkpoints = Checkpoints(
            folder.checkpoints,
            self.state,
            FILE_DTYPES[output.dtype],
            keep=train.checkpoint.keep,
            space=disk_space(adapter, recipe),
        )
        self.pending = Pending()
        self.interruption = Interruption()
        self.previews = make_previews(recipe, self.ready, folder.previews, self.interruption)
        self.choosing = make_choosing(recipe, self.ready, folder.scores, self.interruption)

    def _notify(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def run(self) -> Outcome:
        """Train from the last checkpoint to the end, or to an interruption."""
        steps, output = self.recipe.train.steps, self.recipe.output
        if self.checkpoints.load_latest():
            self._notify(f"resuming after step {self.state.step} of {steps}")
        self.checkpoints.require_space(self.recipe.train)
        models = self.ready.models
        trained = sum(tensor.numel() for tensor in models.adapter.parameters())
        # Only now: a start that failed leaves the folder free.
        self.folder.record(self.recipe, trained, device_name(models.device))
        keep_pictures(self.ready.data.pictures, self.folder.training_pictures)
        if self.ready.data.sheet:
            save_png(self.ready.data.sheet, self.folder.scenes)
        self.reports.begin()
        data = self.recipe.model_dump(mode="json", by_alias=True)
        tracked = tracked_run(output.trackers, self.folder, output.project, data, self.state.step)
        # Trackers end when all is safe on disk: that may take a while.
        with Trackers(output.trackers, tracked, self._notify) as trackers:
            if not self._train(trackers):
                return Outcome(None, self.state.step, self.interruption.number)
            chosen = self._best()
            self.checkpoints.write_result(chosen, self.folder.adapter)
            if self.choosing:
                self._notify(self.choosing.summary(self.state.seconds))
            return Outcome(self.folder.adapter, self.state.step)

    def _train(self, trackers: Trackers) -> bool:
        """Run the loop; return whether it came to the end, with all that belongs to it."""
        steps, asked = self.recipe.train.steps, self.interruption
        metrics = MetricsFile(self.folder.metrics, self.state.step)
        try:
            with Display(self.console, steps, self.state.step) as display, asked.watching():
                outputs = _Outputs(metrics, trackers, display, self._watch or display.update)
                self._look(outputs)  # killed between the save and the pictures
                while self.state.step < steps and not asked.asked:
                    self._step()
                    self._after_step(outputs)
                if asked.asked:
                    self._log(outputs, wait=True)
                    self._save()
        finally:
            metrics.close()
        return self.state.step >= steps and (not self.choosing or self.choosing.complete())

    def _step(self) -> None:
        """Run one training step, and note what is known of it without waiting for the GPU."""
        began = time.monotonic()
        result = self.step(self.state.step)
        self.state.step += 1
        if self.state.average:
            self.state.average.update(self.state.step)
        self.state.seconds += time.monotonic() - began
        schedule = self.ready.models.adapter.schedule
        record = record_of(
            result,
            step=self.state.step,
            ranks=schedule.active_rank(result.timesteps) if schedule else None,
            seconds=self.state.seconds,
            memory_gb=peak_memory(self.ready.models.device) / 1e9,
        )
        self.pending.put(
            record, result.loss, result.d, result.concept_losses if record.samples else None
        )

    def _after_step(self, outputs: _Outputs) -> None:
        """Read losses, save, draw previews, as the step asks for."""
        train, step = self.recipe.train, self.state.step
        saving = step == train.steps or step % train.checkpoint.every == 0
        looking = self._previews_due() or self._score_due()
        self._log(outputs, wait=saving or looking)
        if saving:
            with outputs.display.paused("saving"):
                self._save()
        self._look(outputs)
        if saving or looking:
            with outputs.display.paused("writing the report"):
                self.reports.update()

    def _previews_due(self) -> bool:
        return self.previews is not None and self.previews.due(self.state.step)

    def _score_due(self) -> bool:
        return self.choosing is not None and self.choosing.due(self.state.step)

    def _look(self, outputs: _Outputs) -> None:
        """Draw previews and score the checkpoint, as far as they are due."""
        step = self.state.step
        if self.previews and self._previews_due():
            with self.state.as_result():
                folder = self.previews.draw(step, outputs.display)
            if folder:
                outputs.trackers.log_images(step, folder)
        if self.choosing and self._score_due():
            with self.state.as_result():
                self.choosing.score(step, outputs.display)
            self.checkpoints.remove_old(self._best())

    def _log(self, outputs: _Outputs, wait: bool) -> None:
        """Log the steps whose losses can be read; all of them if asked to wait."""
        for record in self.pending.take(wait):
            if not math.isfinite(record.loss):
                raise self.checkpoints.diverged(f"the loss of step {record.step} is {record.loss}")
            outputs.log(record)

    def _save(self) -> None:
        self.checkpoints.save()
        self.checkpoints.remove_old(self._best())

    def _best(self) -> int:
        """Return the step of the best checkpoint so far; the present step if none is scored."""
        return self.choosing.best(self.state.step) if self.choosing else self.state.step
