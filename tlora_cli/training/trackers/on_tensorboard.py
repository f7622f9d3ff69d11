"""TensorBoard: event files in the run folder, `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tlora_cli.training.trackers.base import LoggedImage, TrackedRun


class TensorBoardTracker:
    """Writes events; on a resume, those after the resumed step are void."""

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, run: TrackedRun) -> str | None:
        """Open a new event file."""
        from torch.utils.tensorboard import SummaryWriter

        folder = str(run.folder.tensorboard)
        self._writer = SummaryWriter(folder, purge_step=run.step + 1)
        recipe = "\n".join(_lines(run.recipe))
        self._writer.add_text("recipe", recipe, run.step + 1)
        return None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a scalar for each number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def log_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Write an image for each preview."""
        for one in images:
            with Image.open(one.file) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._writer.add_image(f"previews/{one.caption}", pixels, step, dataformats="HWC")

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()


def _lines(section: Mapping[str, Any], depth: int = 1) -> list[str]:
    """Return nested values as Markdown that TensorBoard shows as typed."""
    lines = []
    for key, value in section.items():
        inner = isinstance(value, Mapping)
        lines.append("    " * depth + (f"{key}:" if inner else f"{key}: {value}"))
        if inner:
            lines += _lines(value, depth + 1)
    return lines
