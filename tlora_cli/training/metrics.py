"""The numbers of each step: read from the device later, and written to metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from tlora_cli.foundation.devices import HostCopy, copy_to_host
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import explained, write_text
from tlora_cli.foundation.untrusted_json import parse_json
from tlora_cli.training.step import StepResult


@dataclass(frozen=True)
class StepRecord:
    """One finished step, as written to metrics.jsonl.

    Attributes:
        loss: mean over the step's forward passes.
        timestep: mean of the drawn timesteps; active_rank: of their ranks, None without ranks.
        lr: learning rate. d: Prodigy's estimate, else None.
        seconds: since the run began, over all starts of the run.
        memory_gb: peak GPU memory, or the process's peak where there is no GPU.
        samples: timestep and loss of each picture of the concept, of a step that has several
            samples; else None, because `timestep` and `loss` say it.
    """

    step: int
    loss: float
    timestep: float
    active_rank: float | None
    lr: float
    d: float | None
    seconds: float
    memory_gb: float
    samples: tuple[tuple[float, float], ...] | None = None


def record_of(
    result: StepResult, *, step: int, ranks: Tensor | None, seconds: float, memory_gb: float
) -> StepRecord:
    """Return what is known of a step without waiting for the GPU; `Pending` fills in the rest.

    Args:
        result: of the step.
        step: its number, from 1.
        ranks: active at the samples' timesteps, (N,); None without a schedule.
        seconds: in steps so far.
        memory_gb: the peak so far.
    """
    samples = None
    if len(result.timesteps) > 1:
        samples = tuple((t, math.nan) for t in result.concept_timesteps.tolist())
    return StepRecord(
        step=step,
        loss=math.nan,
        timestep=float(result.timesteps.float().mean()),
        active_rank=None if ranks is None else float(ranks.float().mean()),
        lr=result.lr,
        d=None,
        seconds=round(seconds, 3),
        memory_gb=round(memory_gb, 3),
        samples=samples,
    )


class Pending:
    """Finished steps whose numbers are still on the device; the host need not wait for them."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[StepRecord, HostCopy]] = deque()

    def put(
        self,
        record: StepRecord,
        loss: Tensor,
        d: Tensor | float | None,
        losses: Tensor | None = None,
    ) -> None:
        """Take a step's record and the numbers to be filled in.

        Args:
            record: of the step.
            loss: scalar, on the device.
            d: Prodigy's estimate, if that is the optimizer.
            losses: of the record's samples, if it has them.
        """
        numbers = [loss.detach().double()]
        if d is not None:
            numbers.append(torch.as_tensor(d, dtype=torch.float64, device=loss.device))
        read = torch.stack(numbers)
        if losses is not None:
            read = torch.cat([read, losses.detach().double()])
        self._waiting.append((record, copy_to_host(read)))

    def take(self, wait: bool) -> Iterator[StepRecord]:
        """Yield the records that are complete, in order; all of them if asked to wait."""
        while self._waiting:
            record, copy = self._waiting[0]
            if not wait and not copy.arrived():
                return
            self._waiting.popleft()
            loss, *more = copy.read()
            losses = [more.pop() for _ in record.samples or ()][::-1]
            samples = record.samples and tuple(
                (t, own) for (t, _), own in zip(record.samples, losses, strict=True)
            )
            yield replace(record, loss=loss, d=more[0] if more else None, samples=samples)


class MetricsFile:
    """metrics.jsonl; it forgets what lies after a resumed step."""

    def __init__(self, path: Path, step: int) -> None:
        _truncate(path, step)
        self._path = path
        with explained(path):
            self._file = path.open("a", encoding="utf-8")

    def write(self, record: StepRecord) -> None:
        """Write one step."""
        values = {k: v for k, v in asdict(record).items() if v is not None}
        with explained(self._path):
            self._file.write(json.dumps(values) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Flush and close."""
        with explained(self._path):
            self._file.close()


def _truncate(path: Path, step: int) -> None:
    """Drop lines after `step`, and a last line cut short by a crash."""
    if not path.exists():
        return
    if not path.is_file():
        raise UserError(
            f"{path.name} is not a file", str(path), "move it away; training writes it anew"
        )
    with explained(path):
        lines = path.read_bytes().split(b"\n")
    kept = [line.decode() + "\n" for line in lines if _is_of_step(line, step)]
    write_text(path, "".join(kept))


def _is_of_step(line: bytes, last: int) -> bool:
    """Whether a line is the record of a step up to `last`; what is damaged is none."""
    try:
        record = parse_json(line.decode())
    except ValueError:
        return False
    number = record.get("step") if isinstance(record, dict) else None
    return isinstance(number, int) and number <= last
