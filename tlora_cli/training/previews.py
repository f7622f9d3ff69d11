"""Pictures drawn while training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.foundation.files import folder_atomically
from tlora_cli.recipe.train_sections import PreviewConfig
from tlora_cli.sampling.draw import Job, SamplingSettings, Texts, draw, save_picture
from tlora_cli.training.display import Display
from tlora_cli.training.execution import uncompiled
from tlora_cli.training.interruption import Interruption
from tlora_cli.training.prepare import Models


@dataclass(frozen=True)
class Previews:
    """The previews of a run.

    Attributes:
        config: how often, and how many of each prompt.
        prompts: with the concept filled in.
        last: step of the run, whose previews are always drawn, as those of step 0.
        folder: of all previews.
        models: base and adapter.
        texts: returns the prompts' embeddings.
        settings: how they are drawn.
        about: what their metadata says beside, but for the step.
        interruption: no previews are kept once the run is asked to stop.
    """

    config: PreviewConfig
    prompts: Sequence[str]
    last: int
    folder: Path
    models: Models
    texts: Callable[[], Texts]
    settings: SamplingSettings
    about: Mapping[str, Any]
    interruption: Interruption

    def due(self, step: int) -> bool:
        """Return whether previews of a step belong to the run and are not there yet."""
        if self.interruption.asked:
            return False
        due = step == self.last or step % self.config.every == 0
        return due and not self._folder(step).exists()

    def _folder(self, step: int) -> Path:
        return self.folder / f"step-{step:06d}"

    def draw(self, step: int, display: Display) -> Path | None:
        """Draw those of a step, the present one; return their folder, None if interrupted."""
        jobs = [
            Job(prompt, self.config.seed + number)
            for prompt in self.prompts
            for number in range(self.config.count)
        ]
        models, settings = self.models, self.settings
        about = {**self.about, "train_steps": step}
        pictures = draw(
            models.family, models.pipeline, models.adapter, self.texts(), jobs, settings
        )
        try:
            with (
                display.paused("drawing previews"),
                uncompiled(),
                folder_atomically(self._folder(step)) as unfinished,
            ):
                for job, picture in pictures:
                    save_picture(unfinished, job, picture, settings, about)
                    if self.interruption.asked:
                        raise _Interrupted
        except _Interrupted:
            return None
        display.print(f"previews of step {step}: {self._folder(step)}")
        return self._folder(step)


class _Interrupted(Exception):
    """The run was asked to stop while previews were drawn."""
