"""Trackio: local by default (`trackio show`), or in a Space that TRACKIO_SPACE_ID names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlora_cli.training.trackers.base import LoggedImage, TrackedRun


class TrackioTracker:
    """A run of trackio. It is found again by its name, so the name has the id."""

    def __init__(self) -> None:
        self._run: Any = None

    def start(self, run: TrackedRun) -> str | None:
        """Begin or resume the run."""
        import trackio

        self._run = trackio.init(
            project=run.project,
            name=f"{run.folder.path.name}-{run.id}",
            config=dict(run.recipe),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        return None

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send the numbers."""
        self._run.log(dict(numbers), step=step)

    def log_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Send the previews, each under its title."""
        import trackio

        self._run.log(
            {f"previews/{one.caption}": trackio.Image(one.file, one.caption) for one in images},
            step=step,
        )

    def finish(self) -> None:
        """Wait until all is written, or sent."""
        self._run.finish()
