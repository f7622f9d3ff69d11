"""TensorBoard: event files in the run folder, `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from tlora_cli.training.trackers.base import Drawn, Sitting


class Own:
    """Writes events; those of an earlier sitting after the resumed step are void."""

    def __init__(self) -> None:
        self._writer: Any = None

    def start(self, sitting: Sitting) -> str | None:
        """Open a new event file."""
        from torch.utils.tensorboard import SummaryWriter

        folder = str(sitting.run.tensorboard)
        self._writer = SummaryWriter(folder, purge_step=sitting.step + 1)
        recipe = "\n".join(_lines(sitting.recipe))
        self._writer.add_text("recipe", recipe, sitting.step + 1)
        return None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Write a scalar for each number."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def pictures(self, step: int, drawn: Sequence[Drawn]) -> None:
        """Write an image for each preview."""
        for one in drawn:
            with Image.open(one.file) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            self._writer.add_image(f"previews/{one.title}", pixels, step, dataformats="HWC")

    def end(self) -> None:
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
