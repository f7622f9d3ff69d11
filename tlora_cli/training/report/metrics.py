"""metrics.jsonl -> the steps of a run. What can't be read is left out and told, never guessed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tlora_cli.foundation.errors import system_reason
from tlora_cli.foundation.untrusted_json import parse_json


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        step: its number, from 1.
        loss: of the whole step.
        samples: timestep and loss of each picture of the concept; empty if the file has only means.
        seconds: since the run began; None if it is not said.
        memory_gb: the peak so far; None if it is not said.
    """

    step: int
    loss: float
    samples: tuple[tuple[float, float], ...]
    seconds: float | None
    memory_gb: float | None


@dataclass(frozen=True)
class Metrics:
    """The steps of a run, each once, in order; and when the file was last written, as UTC time."""

    steps: list[Step]
    written: float | None


def read_metrics(path: Path, alone: bool, notes: list[str]) -> Metrics:
    """Read the file; there may be none yet.

    Args:
        path: metrics.jsonl.
        alone: whether a step has a single sample, so that its means are the sample's.
        notes: what was left out is added.
    """
    if not path.exists():
        return Metrics([], None)
    try:
        if not path.is_file():  # a pipe would be waited for
            raise OSError("it is not a file")
        lines = path.read_bytes().split(b"\n")
        written = path.stat().st_mtime
    except OSError as error:
        notes.append(f"metrics.jsonl can't be read: {system_reason(error)}.")
        return Metrics([], None)
    steps: dict[int, Step] = {}
    bad, repeated = [], 0
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            step = _parse(line, alone)
        except (ValueError, KeyError, TypeError, OverflowError):
            bad.append(number)
            continue
        repeated += step.step in steps
        steps[step.step] = step
    if bad:
        shown = ", ".join(map(str, bad[:5])) + (", …" if len(bad) > 5 else "")
        notes.append(
            f"{_count(len(bad), 'line')} of metrics.jsonl could not be read and "
            f"{'is' if len(bad) == 1 else 'are'} left out: {shown}."
        )
    if repeated:
        notes.append(
            f"{_count(repeated, 'line')} of metrics.jsonl told of a step once more; the last one "
            "counts."
        )
    found = [steps[number] for number in sorted(steps)]
    if mixed := sum(not step.samples for step in found):
        notes.append(
            f"{_count(mixed, 'step')} of this run say only the mean over pictures of several "
            "timesteps, and so are in no band and in no count of draws."
        )
    return Metrics(found, written)


def _parse(line: bytes, alone: bool) -> Step:
    """Return the step of a line.

    Args:
        line: JSON.
        alone: whether a step has a single sample, so that its means are the sample's.

    Raises:
        ValueError, KeyError, TypeError, OverflowError: if it is no such line.
    """
    record: dict[str, Any] = parse_json(line)
    number = record["step"]
    if type(number) is not int or number < 1:
        raise ValueError("a step is a whole number from 1 on")
    loss, timestep = _number(record["loss"]), _number(record["timestep"])
    samples: tuple[tuple[float, float], ...] = ()
    if record.get("samples"):
        samples = tuple((_number(t), _number(own)) for t, own in record["samples"])
    elif alone:
        samples = ((timestep, loss),)
    return Step(
        number, loss, samples, _optional(record.get("seconds")), _optional(record.get("memory_gb"))
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    number = float(value)  # OverflowError for a whole number beyond all floats
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"
