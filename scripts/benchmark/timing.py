"""Time cases side by side: interleaved, medians with quartiles."""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from benchmark.cases import BARE, Case


@dataclass(frozen=True)
class Spread:
    """Seconds over all rounds: median and quartiles, and how many there were."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Return the spread of some values."""
        if len(values) < 2:
            return cls(values[0], values[0], values[0], 1)
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, len(values))


def timed(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Return the seconds that a run takes, and the processor's seconds in this process."""
    wait(device)
    began, processor = time.perf_counter(), time.process_time()
    run()
    wait(device)
    return time.perf_counter() - began, time.process_time() - processor


def wait(device: torch.device) -> None:
    """Wait until the device has done its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


LEAST_ROUNDS = 3
"""The least number of rounds, whatever the time: a median of fewer says little."""


def measure(
    cases: Sequence[Case],
    device: torch.device,
    rounds: int,
    steps: int,
    left: Callable[[], float] = lambda: float("inf"),
) -> dict[str, dict[str, Any]]:
    """Time training and sampling steps of all cases, one round of each after the other.

    Args:
        cases: what is measured.
        device: where it computes.
        rounds: how often; each begins with another case.
        steps: in a row in a round; their mean counts.
        left: seconds that there still are; without any, no round is begun but the first few.

    Returns:
        Case name -> `first_s`, the first step, with everything that is prepared or compiled in it;
        `losses` of the first steps, the same for methods that start at the identity; `step`,
        `step_cpu`, `sample` and `sample_cpu`, as `Spread`. The processor's time is what counts
        on a computer that does other things, too. For a GPU it is the host's.
    """
    results: dict[str, dict[str, Any]] = {}
    values: dict[tuple[str, str], list[float]] = defaultdict(list)
    for case in cases:
        losses = []
        first, _ = timed(lambda case=case, into=losses: into.append(case.step(0)), device)
        losses += [case.step(1), case.step(2)]
        case.sample(2)
        read = [float(loss) for loss in losses]
        results[case.name] = {"first_s": first, "losses": read, "trained": case.trained}
    for number in range(rounds):
        if number >= LEAST_ROUNDS and left() <= 0:
            break
        for place in range(len(cases)):
            case = cases[(place + number) % len(cases)]
            first = 3 + number * steps
            wall, processor = timed(
                lambda case=case, first=first: [case.step(first + i) for i in range(steps)], device
            )
            values[case.name, "step"].append(wall / steps)
            values[case.name, "step_cpu"].append(processor / steps)
            calls = 4 * steps
            wall, processor = timed(lambda case=case, calls=calls: case.sample(calls), device)
            values[case.name, "sample"].append(wall / calls)
            values[case.name, "sample_cpu"].append(processor / calls)
    for (name, what), seconds in values.items():
        results[name][what] = asdict(Spread.of(seconds))
        own = [name for name in results if name.startswith(f"{BARE} eager")]
        if own:
            # Round by round: what slows the computer down slows both down.
            ratios = [a / b for a, b in zip(seconds, values[own[0], what], strict=True)]
            results[name][f"{what}_ratio"] = asdict(Spread.of(ratios))
    return results


def peak_memory(make: Callable[[], Case], device: torch.device) -> dict[str, float]:
    """Return the GPU memory of three steps of a case that is there alone, in GB.

    `allocated` and `reserved` are PyTorch's peaks, the denoiser's weights included.
    """
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    case = make()
    for index in range(3):
        case.step(index)
    wait(device)
    found = {
        "allocated": torch.cuda.max_memory_allocated(device) / 1e9,
        "reserved": torch.cuda.max_memory_reserved(device) / 1e9,
    }
    del case
    torch.cuda.empty_cache()
    return found


def matmul_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the FLOP/s of a large matrix product, the most that can be had here."""
    size = 8192 if device.type == "cuda" else 768
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.matmul(a, b)
    best = min(timed(lambda: torch.matmul(a, b), device)[0] for _ in range(10))
    return 2 * size**3 / best
