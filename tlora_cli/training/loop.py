"""The training loop: checkpoints, previews, interruption. Only this module uses accelerate."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from torch import Tensor

from tlora_cli.formulas.objectives import TimestepSampler
from tlora_cli.foundation.devices import (
    FILE_DTYPES,
    choose_device,
    device_name,
    memory_explained,
    peak_memory,
)
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import locked, remove_leftovers, require_space
from tlora_cli.recipe.models import Recipe
from tlora_cli.training.checkpoint_selection import Choosing
from tlora_cli.training.execution import choose_execution, make_passes
from tlora_cli.training.interruption import Interruption
from tlora_cli.training.kept_images import keep_pictures
from tlora_cli.training.optimizers import STATE_COPIES, check_optimizer, lr_factor, make_optimizer
from tlora_cli.training.previews import Previews
from tlora_cli.training.progress import Display, Metrics, Pending, StepRecord
from tlora_cli.training.report.live import RunReports
from tlora_cli.training.run_folder import RunFolder, checkpoints
from tlora_cli.training.setup import Prepared, prepare
from tlora_cli.training.state import (
    TrainingState,
    bytes_needed,
    load_latest,
    load_weights,
    remove_old,
    room_for_checkpoints,
    save_checkpoint,
)
from tlora_cli.training.step import Batch, draw_batch, mean_loss, sample_losses
from tlora_cli.training.trackers.background import Trackers
from tlora_cli.training.trackers.base import check_installed, sitting_of

OUT_OF_MEMORY = (
    "set train.gradient_checkpointing: true, then train.quantization: nf4 or a smaller "
    "train.resolution; close other programs on the GPU"
)


@dataclass(frozen=True)
class Outcome:
    """The end of a run."""

    adapter: Path | None
    """The adapter file, or None if the run was interrupted."""
    step: int


def train(recipe: Recipe, resume: bool = False, console: Console | None = None) -> Outcome:
    """Train an adapter; the result is `adapter.safetensors` in the recipe's output.dir.

    Args:
        recipe: the whole run.
        resume: continue the run in output.dir; a run interrupted at any moment ends with the same
            weights as one left alone, on the same machine.
        console: where progress is shown.

    Raises:
        UserError: for anything the user can mend; nothing of an earlier run is overwritten.
    """
    console = console or Console(stderr=True)
    run = RunFolder(Path(recipe.output.dir).expanduser())
    run.check(recipe, resume)  # before anything is touched, even the lock
    reports = RunReports(run, lambda text: console.print(text, highlight=False, soft_wrap=True))
    try:
        with locked(run.path), memory_explained(OUT_OF_MEMORY):
            for folder in (run.path, run.checkpoints, run.previews, run.training_pictures):
                remove_leftovers(folder)
            run.check(recipe, resume)
            if run.finished(recipe):
                console.print(f"this run is already complete: {run.adapter}", highlight=False)
                return Outcome(run.adapter, recipe.train.steps)
            return _Run(recipe, run, console, reports).go()
    finally:
        reports.end()  # the folder is free, so the report says that the run has ended


class _Run:
    """One sitting of a run."""

    def __init__(
        self, recipe: Recipe, run: RunFolder, console: Console, reports: RunReports
    ) -> None:
        self.recipe, self.run, self.console, self.reports = recipe, run, console, reports
        train = recipe.train
        on_cpu = choose_device(train.device, train.precision).type == "cpu"
        check_optimizer(train.optimizer, on_cpu)
        check_installed(recipe.output.trackers)
        AcceleratorState._reset_state(reset_partial_state=True)  # of an earlier run in this process
        self.accelerator = Accelerator(
            gradient_accumulation_steps=train.accumulation,
            mixed_precision="fp16" if train.precision == "fp16" else "no",
            cpu=on_cpu,
        )
        if self.accelerator.num_processes > 1:
            raise UserError(
                "tlora trains in one process",
                do="start it as `tlora train`, without accelerate launch or torchrun",
            )
        self.ready: Prepared = prepare(recipe, run, self._say)
        optimizer = make_optimizer(train.optimizer, self.ready.adapter.parameter_groups())
        self.optimizer = self.accelerator.prepare(optimizer)
        self.state = TrainingState(
            self.ready.adapter, self.optimizer, self.accelerator.scaler, self.ready.inputs
        )
        config = dict(self.ready.pipeline.scheduler.config)
        self.objective = self.ready.family.objective(config, train.objective)
        self.timesteps = TimestepSampler(**train.timesteps.model_dump())
        self.dtype = FILE_DTYPES[recipe.output.dtype]
        self.execution = choose_execution(recipe, self.ready.device)
        self.passes = make_passes(
            self.execution,
            self._passes,
            self.ready.adapter.denoiser,
            self.ready.adapter,
            list(self.ready.adapter.parameters()),
            self.ready.device,
        )
        self.checkpoint_bytes = bytes_needed(self.ready.adapter, STATE_COPIES[train.optimizer.name])
        self.prior_weight = recipe.concept.prior.weight if recipe.concept.prior else 0.0
        self.pending = Pending()
        self.interruption = Interruption()
        self.previews = Previews(recipe, run, self.ready, self.interruption)
        self.choosing = Choosing(recipe, run, self.ready, self.interruption)

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def go(self) -> Outcome:
        """Train from the last checkpoint to the end, or to an interruption."""
        steps = self.recipe.train.steps
        if load_latest(self.run.checkpoints, self.state):
            self._say(f"resuming after step {self.state.step} of {steps}")
        self._require_space()
        trained = sum(tensor.numel() for tensor in self.ready.adapter.parameters())
        # Only now: a start that failed leaves the folder free.
        self.run.record(self.recipe, trained, device_name(self.ready.device))
        keep_pictures(self.ready.pictures, self.run.training_pictures)
        self.reports.begin()
        names = self.recipe.output.trackers
        sitting = sitting_of(names, self.run, self.recipe, self.state.step)
        self.trackers = Trackers(names, sitting, self._say)
        with self.trackers:  # ended when all is safe on disk: that may take a while
            return self._train_and_keep(steps)

    def _train_and_keep(self, steps: int) -> Outcome:
        """Run the loop to its end, and write the adapter."""
        if not self._train_to(steps):
            return Outcome(None, self.state.step)
        chosen = self.choosing.best(self.state.step)
        if chosen != self.state.step:
            load_weights(self.run.checkpoints, chosen, self.ready.adapter)
        self.ready.adapter.info = replace(self.ready.adapter.info, train_steps=chosen)
        self.ready.adapter.save(self.run.adapter, self.dtype)
        if self.recipe.train.select == "auto":
            self._say(self.choosing.told(self.state.seconds))
        return Outcome(self.run.adapter, self.state.step)

    def _require_space(self) -> None:
        """Ask for the room of all checkpoints at once, before hours are spent."""
        present = len(checkpoints(self.run.checkpoints))
        needed = room_for_checkpoints(
            self.recipe.train, self.state.step, present, self.checkpoint_bytes
        )
        require_space(self.run.path, needed, "the run's checkpoints")

    def _train_to(self, steps: int) -> bool:
        """Run the loop; return whether it came to the end, with all that belongs to it."""
        metrics = Metrics(self.run.metrics, self.state.step)
        asked = self.interruption
        try:
            with Display(self.console, steps, self.state.step) as display, asked.watching():
                self._look(display)  # killed between the save and the pictures
                while self.state.step < steps and not asked.asked:
                    self._step()
                    self._after_step(metrics, display)
                if asked.asked:
                    self._read_losses(metrics, display, wait=True)
                    self._save()
        finally:
            metrics.close()
        return self.state.step >= steps and self.choosing.complete()

    def _step(self) -> None:
        """One optimizer step: forward and backward passes, clip, update."""
        train, step, ready = self.recipe.train, self.state.step, self.ready
        began = time.monotonic()
        lr = train.optimizer.lr * lr_factor(train.lr_schedule, step, train.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        total, drawn = torch.zeros((), device=ready.device), []
        own: list[tuple[Tensor, Tensor]] = []
        for micro in range(train.accumulation):
            batch = draw_batch(
                ready.present_examples(),
                ready.prior,
                size=train.batch_size,
                seed=train.seed,
                index=step * train.accumulation + micro,
                objective=self.objective,
                timesteps=self.timesteps,
                device=ready.device,
            )
            losses = self.passes(batch)
            total += mean_loss(losses, batch.instances, self.prior_weight) / train.accumulation
            drawn.append(batch.timesteps)
            own.append((batch.timesteps[: batch.instances], losses[: batch.instances]))
        if train.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(list(ready.adapter.parameters()), train.max_grad_norm)
        self.optimizer.step()
        ready.adapter.after_step(step + 1, train.steps)
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        self.state.seconds += time.monotonic() - began
        record, d = self._record(torch.cat(drawn)), self.optimizer.param_groups[0].get("d")
        if sum(map(len, drawn)) == 1:
            self.pending.put(record, total, d)
        else:
            times = torch.cat([t for t, _ in own]).tolist()
            record = replace(record, samples=tuple((t, math.nan) for t in times))
            self.pending.put(record, total, d, torch.cat([losses for _, losses in own]))

    def _passes(self, batch: Batch) -> Tensor:
        """Run the forward and backward pass of a batch; return its losses, without the penalty."""
        ready = self.ready
        losses = sample_losses(
            ready.family,
            ready.adapter.denoiser,
            self.objective,
            batch,
            dtype=ready.dtype,
            guidance=self.recipe.train.guidance,
        )
        loss, penalty = (
            mean_loss(losses, batch.instances, self.prior_weight),
            ready.adapter.penalty(),
        )
        whole = loss if penalty is None else loss + penalty
        self.accelerator.backward(whole)  # divides by the accumulation; the mask still holds
        return losses.detach()

    def _record(self, timesteps: Tensor) -> StepRecord:
        """Return what is known without waiting for the GPU; the rest is filled in later."""
        group = self.optimizer.param_groups[0]
        schedule = self.ready.adapter.schedule
        ranks = schedule.active_rank(timesteps).float() if schedule else None
        return StepRecord(
            step=self.state.step,
            loss=math.nan,
            timestep=float(timesteps.float().mean()),
            active_rank=None if ranks is None else float(ranks.mean()),
            lr=group["lr"],
            d=None,
            seconds=round(self.state.seconds, 3),
            memory_gb=round(peak_memory(self.ready.device) / 1e9, 3),
        )

    def _after_step(self, metrics: Metrics, display: Display) -> None:
        """Read losses, save, draw previews, as the step asks for."""
        train, step = self.recipe.train, self.state.step
        saving = step == train.steps or step % train.checkpoint.every == 0
        looking = self.previews.due(step) or self.choosing.due(step)
        self._read_losses(metrics, display, wait=saving or looking)
        if saving:
            with display.paused("saving"):
                self._save()
        self._look(display)
        if saving or looking:
            with display.paused("writing the report"):
                self.reports.update()

    def _look(self, display: Display) -> None:
        """Draw previews and score the checkpoint, as far as they are due."""
        step = self.state.step
        if self.previews.due(step) and (folder := self.previews.draw(step, display)):
            self.trackers.pictures(step, folder)
        if self.choosing.due(step):
            self.choosing.score(step, display)
            self._remove_old()

    def _read_losses(self, metrics: Metrics, display: Display, wait: bool) -> None:
        for record in self.pending.take(wait):
            if not math.isfinite(record.loss):
                raise self._not_finite(f"the loss of step {record.step} is {record.loss}")
            metrics.write(record)
            self.trackers.log(record)
            display.update(record)

    def _save(self) -> None:
        finite = [tensor.isfinite().all() for tensor in self.ready.adapter.parameters()]
        if not all(torch.stack(finite).tolist()):  # read together
            raise self._not_finite(f"the adapter's weights after step {self.state.step} overflowed")
        self.ready.adapter.info = replace(self.ready.adapter.info, train_steps=self.state.step)
        save_checkpoint(self.run.checkpoints, self.state, self.dtype, self.checkpoint_bytes)
        self._remove_old()

    def _remove_old(self) -> None:
        keep, best = self.recipe.train.checkpoint.keep, self.choosing.best(self.state.step)
        remove_old(self.run.checkpoints, keep, spared=best)

    def _not_finite(self, what: str) -> UserError:
        kept = checkpoints(self.run.checkpoints)
        good = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was saved yet"
        return UserError(
            f"{what}: training has diverged; {good}",
            where=str(self.run.path),
            do="lower train.optimizer.lr, set train.max_grad_norm: 1.0, or use precision bf16 or "
            "fp32, with another output.dir",
        )
