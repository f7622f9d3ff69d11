"""Weights & Biases. Without a login or a server the run is kept offline, in the run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tlora_cli.training.trackers.base import LoggedImage, TrackedRun

PATIENCE = 20.0
"""Seconds in which the server must have answered when the run starts; less than the end of a run
waits, so that a short run is kept, too."""


class WandbTracker:
    """A run of wandb, under the run's own id."""

    def __init__(self) -> None:
        self._run: Any = None
        self._known = 0

    def start(self, run: TrackedRun) -> str | None:
        """Begin or resume the run: online if that works, else offline."""
        import wandb
        from wandb.errors import Error

        kept = run.folder.path / "wandb"
        offline = f"the run is kept in {kept}; to upload it: wandb sync {kept}/offline-run-*"
        wanted = wandb.setup(wandb.Settings(silent=True)).settings.mode
        if wanted in ("offline", "disabled"):
            self._begin(run, wanted)
            return None if wanted == "disabled" else f"wandb is set to offline: {offline}"
        # Never a prompt: the training runs meanwhile.
        if not wandb.login(prompt=False, verify=False):
            self._begin(run, "offline")
            return f"wandb is not logged in (`wandb login`): {offline}"
        try:
            self._begin(run, "online")
        except Error as error:
            wandb.teardown()  # else the id counts as in use
            self._begin(run, "offline")
            return f"wandb can't be reached ({_first_line(error)}): {offline}"
        return None

    def _begin(self, run: TrackedRun, mode: str) -> None:
        import wandb

        self._run = wandb.init(
            project=run.project,
            id=run.id,
            name=run.folder.path.name,
            config=dict(run.recipe),
            dir=str(run.folder.path),
            mode=mode,
            resume="allow",
            # The terminal stays the training's, and what is sent is what is logged here.
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=PATIENCE, disable_code=True,
                disable_git=True, x_disable_stats=True, x_disable_meta=True,
            ),
        )  # fmt: skip
        self._run.config.update(dict(run.recipe), allow_val_change=True)
        # wandb takes no step a second time; what a resumed run repeats is the same anyway.
        self._known = self._run.step

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Send the numbers, unless the server has the step."""
        if step >= self._known:
            self._run.log(dict(numbers), step=step)

    def log_images(self, step: int, images: Sequence[LoggedImage]) -> None:
        """Send the previews, each with its title; under a step that wandb still takes."""
        import wandb

        shown = [wandb.Image(str(one.file), caption=one.caption) for one in images]
        self._run.log({"previews": shown}, step=max(step, self._known))

    def finish(self) -> None:
        """Wait until all is sent, or written."""
        self._run.finish()


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
