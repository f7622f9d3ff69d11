"""Parts of `tlora compare` and `tlora batch`: engines, what is told of jobs, and how they end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tlora_cli.cli.reporter import reporter

if TYPE_CHECKING:
    from tlora_cli.comparison.engine import Ended, Engine


class CellEvents:
    """Tells programs of jobs. An `engine.Report`."""

    def started(self, job: str) -> None:
        """Tell that a job has begun."""
        reporter.event("cell", name=job, state="started", error="", kind=None)

    def said(self, job: str, line: str) -> None:
        """Tell nothing: what a job says goes into its log."""

    def ended(self, job: str, how: Ended) -> None:
        """Tell how a job has ended."""
        state, kind = ("failed", how.kind.word) if how.error else ("done", None)
        reporter.event("cell", name=job, state=state, error=how.error, kind=kind)


def make_engine(workers: int | None, ray: str | None, on_cpu: bool) -> Engine:
    """Return what runs jobs.

    Args:
        workers: jobs at once; None for one a GPU, or what a cluster has room for.
        ray: address of a Ray cluster; None for processes of this machine.
        on_cpu: whether no job needs a GPU.

    Raises:
        UserError: if the cluster doesn't answer, or there are more workers than GPUs.
    """
    if ray is not None:
        from tlora_cli.comparison.on_ray import RayEngine

        return RayEngine(ray, workers, gpu=not on_cpu)
    from tlora_cli.comparison.local import LocalEngine, visible_gpus

    return LocalEngine(workers, [] if on_cpu else visible_gpus())


def end_with_failed(
    called: str, failed: Mapping[str, Ended], logs: Mapping[str, Path], again: str
) -> None:
    """Say which jobs failed and why, and end with the status of what is to be mended first.

    Args:
        called: what a job is, such as a cell.
        failed: name -> how it ended.
        logs: name -> its log, where there is one.
        again: the command that runs them again.

    Raises:
        typer.Exit: with the lowest status of all; nothing if none failed.
    """
    if not failed:
        return
    count = f"1 {called}" if len(failed) == 1 else f"{len(failed)} {called}s"
    lines = [f"{count} failed:"]
    for name, how in failed.items():
        lines += [f"  {name}: {how.error}".replace("\n", "\n  ")]
        if name in logs:
            lines.append(f"    log: {logs[name]}")
    lines.append(f"the others are finished; this runs the failed ones again:\n  {again}")
    reporter.inform("\n".join(lines), err=True)
    raise typer.Exit(min(how.kind for how in failed.values()))
