"""Pictures of places, drawn by the base model, and kept for the next concept.

A picture is a function of base, prompt, seed and settings, which its file's name is a digest of. It
is taken from the run's folder, or from the user's cache, or drawn; then it is in both. So a resumed
run has the same places though the cache was emptied.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tlora_cli.families import Family
from tlora_cli.foundation.bundled import version_of
from tlora_cli.foundation.cache import VARIABLE, cache_folder
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import remove_leftovers, write_atomically
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.draw import Job, SamplingSettings, Texts, draw, write_picture


class DrawnPlaces:
    """The pictures of places of a run.

    Args:
        recipe: of the run.
        prompts: of the places.
        settings: of drawing.
        folder: of the run, for places.
        notify: shows a line.
    """

    def __init__(
        self,
        recipe: Recipe,
        prompts: Sequence[str],
        settings: SamplingSettings,
        folder: Path,
        notify: Callable[[str], None],
    ) -> None:
        scenes = recipe.concept.scenes
        assert scenes is not None
        self.jobs = [Job(prompt, seed) for prompt in prompts for seed in range(scenes.each)]
        self._settings, self._folder, self._notify = settings, folder, notify
        self._drawn_by = {
            "base": recipe.base.model_dump(),
            "base_version": version_of(recipe.base.model),
            "precision": recipe.train.precision,
            "quantization": recipe.train.quantization,
            **vars(settings),
        }
        self.files = [folder / self._name(job) for job in self.jobs]
        """The files in the run's folder, whether they are there yet or not; one for each job."""
        self._cache = cache_folder("places")
        self._take_from_cache()

    @property
    def missing(self) -> list[Job]:
        """The jobs that have to be drawn."""
        return [job for job, file in zip(self.jobs, self.files, strict=True) if not file.exists()]

    def draw(self, family: Family, pipeline: Any, texts: Texts | None) -> None:
        """Draw what is missing.

        Args:
            family: of the base.
            pipeline: of the base, without an adapter.
            texts: of the missing prompts; None if none is missing.
        """
        jobs = self.missing
        if not jobs or texts is None:
            return
        self._notify(f"drawing {len(jobs)} pictures of places, for this and later concepts")
        about = {"purpose": "a place for scenes"}
        for job, picture in draw(family, pipeline, None, texts, jobs, self._settings):
            file = self._folder / self._name(job)
            write_picture(file, job, picture, self._settings, about)
            self._put_into_cache(file)

    def _name(self, job: Job) -> str:
        text = json.dumps([job.prompt, job.seed, self._drawn_by], sort_keys=True)
        return f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.png"

    def _take_from_cache(self) -> None:
        remove_leftovers(self._folder)
        for file in self.files:
            cached = self._cache / file.name
            if not file.exists() and cached.is_file():
                _copy(cached, file)

    def _put_into_cache(self, file: Path) -> None:
        try:
            _copy(file, self._cache / file.name)
        except UserError as error:
            if self._cache_works:
                self._notify(
                    f"places are not kept for later runs: {error.what}; {VARIABLE} names another "
                    "folder"
                )
            self._cache_works = False

    _cache_works = True


def _copy(source: Path, target: Path) -> None:
    content = source.read_bytes()

    def write(part: Path) -> None:
        part.write_bytes(content)

    write_atomically(target, write)
