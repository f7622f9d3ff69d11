"""Checkpoints scored while training: a few pictures each, always of the same prompts and noise.

Imported only by runs with `train.select: auto`: its encoders take a second to import.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tlora_cli.evaluation.encoders import Encoder, load_encoder
from tlora_cli.evaluation.masking import paint_over
from tlora_cli.foundation.bundled import Bundle
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.prompts import sampling_prompt
from tlora_cli.recipe.train_sections import TrainConfig
from tlora_cli.sampling.draw import Job, SamplingSettings, Texts, draw
from tlora_cli.training.checkpoint_scores import (
    Cosines,
    Record,
    best,
    overfitting,
    read_record,
    write_record,
)
from tlora_cli.training.display import Display
from tlora_cli.training.execution import uncompiled
from tlora_cli.training.interruption import Interruption
from tlora_cli.training.kept_images import SmallPicture
from tlora_cli.training.prepare import Models
from tlora_cli.training.scoring_prompts import ENCODERS, Trial


@dataclass(frozen=True)
class TrialDrawing:
    """Settings by which pictures of a checkpoint are drawn.

    Attributes:
        models: base and adapter.
        texts: returns the prompts' embeddings.
        trial: the pictures.
        settings: of the pictures.
        batch_size: how many are drawn together.
        concept: words for V*.
        class_name: of the concept.
        bundle: that the base is one of, if it is.
    """

    models: Models
    texts: Callable[[], Texts]
    trial: Trial
    settings: SamplingSettings
    batch_size: int
    concept: str
    class_name: str
    bundle: Bundle | None


class Choosing:
    """Scores checkpoints and says which is the best.

    The encoders stay on the CPU: they take seconds there, and a GPU has no room for them.

    Args:
        drawn: how pictures of the checkpoints are drawn.
        train: says how many steps there are, and how often a checkpoint is saved.
        file: of the scores.
        training: the training pictures.
        interruption: no scoring is begun or finished once the run is asked to stop.

    Raises:
        UserError: if an encoder can't be had, or earlier checkpoints of the run were scored with
            other settings.
    """

    def __init__(
        self,
        drawn: TrialDrawing,
        train: TrainConfig,
        file: Path,
        training: Sequence[SmallPicture],
        interruption: Interruption,
    ) -> None:
        self._drawn, self._file, self._interruption = drawn, file, interruption
        self._last, self._every = train.steps, train.checkpoint.every
        suite = _suite(drawn)
        self._record = read_record(file) or Record(suite)
        if self._record.suite != suite:
            raise _scored_otherwise(self._record.suite, suite, file)
        bundle, cpu = drawn.bundle, torch.device("cpu")
        self._encoders = {name: load_encoder(name, None, cpu, bundle) for name in ENCODERS}
        self._real = _features(self._encoders, [one.picture for one in training])
        self._subjects = _features(self._encoders, [_subject(one) for one in training])
        texts = [sampling_prompt(p, drawn.class_name) for p in drawn.trial.prompts]
        self._texts = self._encoders["clip"].texts(texts)

    def due(self, step: int) -> bool:
        """Whether the checkpoint of a step is to be scored and is not yet."""
        if step == 0 or self._interruption.asked:
            return False
        due = step >= self._last or step % self._every == 0
        return due and step not in self._record.steps

    def complete(self) -> bool:
        """Whether nothing is missing to choose, after the last step."""
        return self._record.reaches(self._last)

    def best(self, step: int) -> int:
        """Return the step of the best checkpoint so far; `step`, the present one, if none is."""
        scores = self._record.scores()
        return best(scores).step if scores else step

    def score(self, step: int, display: Display) -> None:
        """Score the present weights, those of a step."""
        record, began = self._record, time.monotonic()
        with display.paused("scoring"), uncompiled():
            if record.base is None:
                record.copier = self._copier()
                record.base = self._look(self._drawn.class_name, 0.0)
            own = self._look(self._drawn.concept, 1.0) if record.base else None
        if own is None:
            return  # asked to stop
        record.steps[step] = own
        record.seconds[step] = round(time.monotonic() - began, 3)
        write_record(self._file, record)
        [found] = [one for one in record.scores() if one.step == step]
        text = (
            f"step {step}: likeness {found.likeness:.2f}, agreement with prompts "
            f"{found.agreement:.2f}, balance {found.balance:.2f}"
        )
        display.print(text + (", the best so far" if self.best(step) == step else ""))
        if overfitting(record) == step:
            display.print(
                f"step {step} agrees with its prompts less than step {self.best(step)}, beyond "
                "chance: overfitting begins"
            )

    def summary(self, seconds: float) -> str:
        """Return in a line what was chosen, and what choosing cost.

        Args:
            seconds: spent in the run's steps.
        """
        record = self._record
        scores, spent = record.scores(), sum(record.seconds.values())
        share = spent / max(spent + seconds, 1e-9)
        return (
            f"step {best(scores).step} of {self._last} has the best balance and is "
            f"kept; scoring {len(scores)} checkpoints took {share:.0%} of the time"
        )

    def _look(self, concept: str, strength: float) -> Cosines | None:
        """Draw the trial's pictures and return their cosines; None if the run is asked to stop.

        Args:
            concept: words for V*.
            strength: of the adapter; 0 is the base.
        """
        drawn, trial = self._drawn, self._drawn.trial
        models = drawn.models
        jobs = [Job(sampling_prompt(p, concept), s) for p, s in trial.pictures]
        before, models.adapter.scale = models.adapter.scale, strength
        pictures: list[Image.Image] = []
        try:
            for _, picture in draw(
                models.family,
                models.pipeline,
                models.adapter,
                drawn.texts(),
                jobs,
                drawn.settings,
                drawn.batch_size,
            ):
                pictures.append(picture)
                if self._interruption.asked:
                    return None
        finally:
            models.adapter.scale = before
        plain, placed = pictures[: trial.plain], pictures[trial.plain :]
        likeness = {
            name: (features @ self._subjects[name].T).mean(1).tolist()
            for name, features in _features(self._encoders, plain).items()
        }
        seen = self._encoders["clip"].pictures(placed)
        return Cosines(likeness, (seen * self._texts).sum(1).tolist())

    def _copier(self) -> Cosines:
        """Return the cosines of the training pictures themselves, in place of every picture."""
        likeness = {
            name: [float((real @ self._subjects[name].T).mean())] * self._drawn.trial.plain
            for name, real in self._real.items()
        }
        return Cosines(likeness, (self._texts @ self._real["clip"].T).mean(1).tolist())


def _features(
    encoders: Mapping[str, Encoder], pictures: Sequence[Image.Image]
) -> dict[str, Tensor]:
    return {name: encoder.pictures(pictures) for name, encoder in encoders.items()}


def _subject(one: SmallPicture) -> Image.Image:
    """Return a training picture; with a mask, its background painted over."""
    if one.mask is None:
        return one.picture
    return paint_over(one.picture, torch.from_numpy(np.array(one.mask)) > 127)


def _scored_otherwise(
    before: Mapping[str, object], now: Mapping[str, object], file: Path
) -> UserError:
    """Return the error of a run whose earlier checkpoints were scored by other pictures."""
    ours = all(before.get(key) == now[key] for key in ("pictures", "encoders"))
    by, do = "with other settings", "restore sampling and the sizes of pictures, "
    if not ours:  # no setting changes these
        by, do = "by another version of tlora, which draws other pictures", "go on with that one, "
    return UserError(
        f"the checkpoints of this run were scored {by}, so new ones can't be compared with them",
        where=str(file),
        do=f"{do}set train.select: last, or move the file away to score from the present "
        "checkpoint on",
    )


def _suite(drawn: TrialDrawing) -> dict[str, object]:
    """Return all that the scores depend on beside the weights, as plain values of JSON."""
    return {
        "pictures": [[prompt, seed] for prompt, seed in drawn.trial.pictures],
        "class": drawn.class_name,
        "sampling": asdict(drawn.settings),
        "encoders": list(ENCODERS),
    }
