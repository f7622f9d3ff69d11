"""Pictures drawn while training."""

from __future__ import annotations

from pathlib import Path

from tlora_cli.foundation.files import folder_atomically
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.draw import Job, describe, draw, save_picture
from tlora_cli.training.execution import uncompiled
from tlora_cli.training.interruption import Interruption
from tlora_cli.training.progress import Display
from tlora_cli.training.run_folder import RunFolder
from tlora_cli.training.setup import Prepared, preview_prompts, sampling_settings


class Previews:
    """The previews of a run.

    Args:
        recipe: of the run.
        run: its folder.
        ready: models and texts.
        interruption: no previews are kept once the run is asked to stop.
    """

    def __init__(
        self, recipe: Recipe, run: RunFolder, ready: Prepared, interruption: Interruption
    ) -> None:
        self._recipe, self._run, self._ready = recipe, run, ready
        self._interruption = interruption

    def due(self, step: int) -> bool:
        """Whether previews of a step belong to the run and are not there yet."""
        preview = self._recipe.train.preview
        if preview is None or step == 0 or self._interruption.asked:
            return False
        due = step == self._recipe.train.steps or step % preview.every == 0
        return due and not self._folder(step).exists()

    def _folder(self, step: int) -> Path:
        return self._run.previews / f"step-{step:06d}"

    def draw(self, step: int, display: Display) -> Path | None:
        """Draw those of a step, the present one; return their folder, None if interrupted."""
        preview, ready = self._recipe.train.preview, self._ready
        assert preview is not None and ready.texts is not None
        jobs = [
            Job(prompt, preview.seed + number)
            for prompt in preview_prompts(self._recipe)
            for number in range(preview.count)
        ]
        settings, base = sampling_settings(self._recipe), self._recipe.base
        about = describe(
            ready.adapter,
            base.model,
            base.revision,
            self._recipe.train.precision,
            train_steps=step,
            batch_size=1,
        )
        pictures = draw(ready.family, ready.pipeline, ready.adapter, ready.texts(), jobs, settings)
        try:
            with (
                display.paused("drawing previews"),
                uncompiled(),
                folder_atomically(self._folder(step)) as unfinished,
            ):
                for job, picture in pictures:
                    save_picture(unfinished, job, picture, settings, about)
                    if self._interruption.asked:
                        raise _Left
        except _Left:
            return None
        display.say(f"previews of step {step}: {self._folder(step)}")
        return self._folder(step)


class _Left(Exception):
    """The run was asked to stop while previews were drawn."""
