"""The training loop: checkpoints, previews, interruption. Only this module uses accelerate."""

from __future__ import annotations

import math
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from rich.console import Console
from torch import Tensor

from tlora_cli.devices import choose_device
from tlora_cli.errors import UserError
from tlora_cli.files import folder_atomically, locked, remove_leftovers, require_space
from tlora_cli.objectives import TimestepSampler
from tlora_cli.recipe import Recipe
from tlora_cli.sampling import Job, draw, save_picture
from tlora_cli.training.optimizers import STATE_COPIES, lr_factor, make_optimizer
from tlora_cli.training.progress import Display, Metrics, StepRecord
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.setup import (
    Prepared,
    prepare,
    preview_prompts,
    sampling_settings,
)
from tlora_cli.training.state import (
    TrainingState,
    bytes_needed,
    checkpoints,
    load_latest,
    save_checkpoint,
)
from tlora_cli.training.step import compute_loss, draw_batch

FILE_DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
GPU_READ_EVERY = 10
"""Steps between looks at the loss on a GPU, so that the host does not wait at every step."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    adapter: Path | None
    """The adapter file, or None if the run was interrupted."""
    step: int


class _Interruption:
    """First Ctrl-C (or SIGTERM): stop after this step. Second: stop now."""

    def __init__(self, console: Console) -> None:
        self.asked = False
        self._console = console

    def _on_signal(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        self._console.print(
            "\nstopping after this step and saving; press Ctrl-C again to stop at once",
            highlight=False,
        )

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Take the signals over for the block."""
        before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
    if run.holds_run() and not resume:
        run.claim(recipe, resume)  # raises before anything is touched
    with locked(run.path):
        for folder in (run.path, run.checkpoints):
            remove_leftovers(folder)
        run.claim(recipe, resume)
        if run.adapter.exists() and _finished(run, recipe):
            console.print(f"this run is already complete: {run.adapter}", highlight=False)
            return Outcome(run.adapter, recipe.train.steps)
        return _Run(recipe, run, console).go()


def _finished(run: RunFolder, recipe: Recipe) -> bool:
    found = checkpoints(run.checkpoints)
    return bool(found) and int(found[-1].name.split("-")[1]) >= recipe.train.steps


class _Run:
    """One sitting of a run."""

    def __init__(self, recipe: Recipe, run: RunFolder, console: Console) -> None:
        self.recipe, self.run, self.console = recipe, run, console
        train = recipe.train
        on_cpu = choose_device(train.device, train.precision).type == "cpu"
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
        optimizer = make_optimizer(train.optimizer, self.ready.adapter.parameters())
        self.optimizer = self.accelerator.prepare(optimizer)
        self.state = TrainingState(self.ready.adapter, self.optimizer, self.accelerator.scaler)
        config = dict(self.ready.pipeline.scheduler.config)
        self.objective = self.ready.family.objective(config, train.objective)
        self.timesteps = TimestepSampler(**train.timesteps.model_dump())
        self.dtype = FILE_DTYPES[recipe.output.dtype]
        self.checkpoint_bytes = bytes_needed(self.ready.adapter, STATE_COPIES[train.optimizer.name])
        self.unread: list[tuple[StepRecord, Tensor]] = []

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def go(self) -> Outcome:
        """Train from the last checkpoint to the end, or to an interruption."""
        steps = self.recipe.train.steps
        if load_latest(self.run.checkpoints, self.state):
            self._say(f"resuming after step {self.state.step} of {steps}")
        self._require_space()
        if self.state.step < steps and not self._train_to(steps):
            return Outcome(None, self.state.step)
        self.ready.adapter.info = replace(self.ready.adapter.info, train_steps=self.state.step)
        self.ready.adapter.save(self.run.adapter, self.dtype)
        return Outcome(self.run.adapter, self.state.step)

    def _require_space(self) -> None:
        """Ask for the room of all checkpoints at once, before hours are spent."""
        config = self.recipe.train.checkpoint
        left = math.ceil((self.recipe.train.steps - self.state.step) / config.every)
        present = len(checkpoints(self.run.checkpoints))
        # One more than is kept: the new one is written before the oldest goes. One for the result.
        written = min(left, max(0, config.keep + 1 - present)) + 1
        require_space(self.run.path, written * self.checkpoint_bytes, "the run's checkpoints")

    def _train_to(self, steps: int) -> bool:
        """Run the loop; return whether it came to the end."""
        tensorboard = self.run.tensorboard if self.recipe.output.tensorboard else None
        metrics = Metrics(self.run.metrics, tensorboard, self.state.step)
        interruption = _Interruption(self.console)
        try:
            with Display(self.console, steps, self.state.step) as display, interruption.watching():
                while self.state.step < steps and not interruption.asked:
                    self._step()
                    self._after_step(metrics, display, stopping=interruption.asked)
        finally:
            metrics.close()
        return self.state.step >= steps

    def _step(self) -> None:
        """One optimizer step: forward and backward passes, clip, update."""
        train, step, ready = self.recipe.train, self.state.step, self.ready
        prior = self.recipe.concept.prior
        began = time.monotonic()
        for group in self.optimizer.param_groups:
            group["lr"] = train.optimizer.lr * lr_factor(train.lr_schedule, step, train.steps)
        total, drawn = torch.zeros((), device=ready.device), []
        for micro in range(train.accumulation):
            batch = draw_batch(
                ready.examples,
                ready.prior,
                size=train.batch_size,
                seed=train.seed,
                index=step * train.accumulation + micro,
                objective=self.objective,
                timesteps=self.timesteps,
                device=ready.device,
            )
            loss = compute_loss(
                ready.family,
                ready.adapter.denoiser,
                self.objective,
                batch,
                dtype=ready.dtype,
                guidance=train.guidance,
                prior_weight=prior.weight if prior else 0.0,
            )
            self.accelerator.backward(loss)  # divides by the accumulation; the mask still holds
            total += loss.detach() / train.accumulation
            drawn.append(batch.timesteps)
        if train.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(list(ready.adapter.parameters()), train.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.state.step += 1
        self.state.seconds += time.monotonic() - began
        self.unread.append((self._record(torch.cat(drawn)), total))

    def _record(self, timesteps: Tensor) -> StepRecord:
        """Return what is known without waiting for the GPU; the loss is filled in later."""
        group = self.optimizer.param_groups[0]
        ranks = self.ready.adapter.schedule.active_rank(timesteps)
        return StepRecord(
            step=self.state.step,
            loss=math.nan,
            timestep=float(timesteps.float().mean()),
            active_rank=float(ranks.float().mean()),
            lr=group["lr"],
            d=group.get("d"),
            seconds=round(self.state.seconds, 3),
            memory_gb=round(_memory_gb(self.ready.device), 3),
        )

    def _after_step(self, metrics: Metrics, display: Display, stopping: bool) -> None:
        """Read losses, save, draw previews, as the step asks for."""
        train, step = self.recipe.train, self.state.step
        last = step == train.steps
        saving = last or stopping or step % train.checkpoint.every == 0
        previewing = train.preview and (last or step % train.preview.every == 0)
        on_cpu = self.ready.device.type == "cpu"
        if on_cpu or saving or previewing or len(self.unread) >= GPU_READ_EVERY:
            self._read_losses(metrics, display)
        if saving:
            with display.paused("saving"):
                self._save()
        if previewing:
            with display.paused("drawing previews"):
                self._preview(display)

    def _read_losses(self, metrics: Metrics, display: Display) -> None:
        for record, loss in self.unread:
            value = float(loss)
            if not math.isfinite(value):
                raise self._not_finite(f"the loss of step {record.step} is {value}")
            filled = replace(record, loss=value)
            metrics.write(filled)
            display.update(filled)
        self.unread.clear()

    def _save(self) -> None:
        tensors = self.ready.adapter.parameters()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise self._not_finite(f"the adapter's weights after step {self.state.step} overflowed")
        self.ready.adapter.info = replace(self.ready.adapter.info, train_steps=self.state.step)
        keep = self.recipe.train.checkpoint.keep
        save_checkpoint(self.run.checkpoints, self.state, keep, self.dtype, self.checkpoint_bytes)

    def _not_finite(self, what: str) -> UserError:
        kept = checkpoints(self.run.checkpoints)
        good = f"the last good checkpoint is {kept[-1]}" if kept else "no checkpoint was saved yet"
        return UserError(
            f"{what}: training has diverged; {good}",
            where=str(self.run.path),
            do="lower train.optimizer.lr, set train.max_grad_norm: 1.0, or use precision bf16 or "
            "fp32, with another output.dir",
        )

    def _preview(self, display: Display) -> None:
        preview, ready = self.recipe.train.preview, self.ready
        assert preview is not None and ready.texts is not None
        folder = self.run.previews / f"step-{self.state.step:06d}"
        if folder.exists():  # drawn before the run was resumed; the same pictures
            return
        jobs = [
            Job(prompt, preview.seed + number)
            for prompt in preview_prompts(self.recipe)
            for number in range(preview.count)
        ]
        settings = sampling_settings(self.recipe)
        about = {"step": self.state.step, "base": self.recipe.base.model}
        with folder_atomically(folder) as unfinished:
            for job, picture in draw(
                ready.family, ready.pipeline, ready.adapter, ready.texts, jobs, settings
            ):
                save_picture(unfinished, job, picture, settings, about)
        display.say(f"previews of step {self.state.step}: {folder}")


def _memory_gb(device: torch.device) -> float:
    """Return the peak memory so far in GB: the GPU's, or the process's on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e9 if sys.platform == "darwin" else 1e6)
