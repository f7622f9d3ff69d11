#!/usr/bin/env python3
"""Measure how fast the start, training and sampling are on this computer.

    python scripts/bench.py OUT                         on whatever is there
    python scripts/bench.py OUT --methods lora,tlora --modes eager --rounds 15
    python scripts/bench.py OUT --other scripts/their_lora.py

On a GPU: the true SDXL and FLUX configurations with random weights, in bf16, nothing is downloaded.
On a CPU: the built-in toy-sdxl. Every method and mode is timed beside the bare denoiser and the
published formulation, in turns. OUT gets BASE.json and BASE.md. `docs/performance.md` explains
the figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import diffusers
import torch
from benchmark.cases import BARE, MODES, Case, Setting, Workload, load_other, make_case, methods
from benchmark.cold import measure_cold
from benchmark.counting import count_step
from benchmark.inputs import SIDE
from benchmark.random_base import random_denoiser, write_random_base
from benchmark.report import markdown
from benchmark.starts import measure_start
from benchmark.timing import matmul_rate, measure, peak_memory

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.foundation.bundled import model_folder
from tlora_cli.foundation.devices import choose_device
from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.files import write_text
from tlora_cli.methods import METHODS

TOY = "toy-sdxl"
TOY_SIDE, TOY_TOKENS = 8, 40
GRAPH = MODES[-1]
PARTS = ("start", "steps", "cold")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the results; return the exit status."""
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "scripts/bench.py", *(arguments or sys.argv[1:])])
    try:
        for base in options.bases:
            results = bench(base, options, command)
            options.out.mkdir(parents=True, exist_ok=True)
            write_text(options.out / f"{base}.json", json.dumps(results, indent=1))
            write_text(options.out / f"{base}.md", markdown(results))
            print(markdown(results))
    except (OSError, RuntimeError, UserError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0], allow_abbrev=False
    )
    parser.add_argument("out", type=Path, help="folder for the results")
    parser.add_argument(
        "--bases",
        type=_names(TOY, *FAMILIES),
        default=list(FAMILIES) if gpu else [TOY],
        help="of toy-sdxl, sdxl, flux; default: toy-sdxl on a CPU, the others on a GPU",
    )
    parser.add_argument(
        "--methods", type=_names(*methods()), default=methods(), help="default: all"
    )
    parser.add_argument("--modes", type=_names(*MODES), default=list(MODES), help="default: all")
    parser.add_argument("--parts", type=_names(*PARTS), default=list(PARTS), help="default: all")
    parser.add_argument("--other", type=Path, help="file of another implementation")
    parser.add_argument("--rank", type=int, help="default: 32 for toy-sdxl, else 64")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--steps", type=int, default=5, help="in a row in a round")
    parser.add_argument("--cold-steps", type=int, help="default: 100 for toy-sdxl, else 800")
    parser.add_argument("--threads", type=int, help="of PyTorch on the CPU")
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, steps and decompositions: to see it run"
    )
    return parser


def _names(*known: str) -> Any:
    def names(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return found

    return names


def bench(base: str, options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return the results for a base."""
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.quick:
        options.rounds, options.steps = min(options.rounds, 2), min(options.steps, 1)
    toy = base == TOY
    device = choose_device("auto", "fp32")
    setting = Setting(
        family="sdxl" if toy else base,
        base=base,
        side=TOY_SIDE if toy else SIDE,
        tokens=TOY_TOKENS if toy else FAMILIES[base].text_tokens,
        rank=options.rank or (32 if toy else 64),
        device=device,
        dtype=torch.float32 if device.type == "cpu" else torch.bfloat16,
        config=str(model_folder(TOY)) if toy else None,
    )
    results: dict[str, Any] = {"about": _about(setting, options, command)}
    if "start" in options.parts:
        shown = setting.config if options.quick else None
        results["start"] = measure_start(setting.family, setting.rank if toy else 64, shown)
    if "steps" in options.parts:
        _steps(setting, options, results)
    if "cold" in options.parts:
        results["cold"] = _cold(setting, options)
    return results


def _about(setting: Setting, options: argparse.Namespace, command: str) -> dict[str, Any]:
    on_gpu = setting.device.type == "cuda"
    name = torch.cuda.get_device_name(setting.device) if on_gpu else _processor()
    return {
        "base": setting.base,
        "device": name,
        "date": datetime.now(UTC).date().isoformat(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
        },
        "threads": torch.get_num_threads(),
        "command": command,
        "rank": setting.rank,
        "side": setting.side,
        "dtype": str(setting.dtype).removeprefix("torch."),
        "rounds": options.rounds,
        "steps": options.steps,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _steps(setting: Setting, options: argparse.Namespace, results: dict[str, Any]) -> None:
    """Fill in `cases`: every method in every mode, the bare denoiser, what it is compared with."""
    device = setting.device
    workload = Workload(setting, _denoiser(setting))
    compared = ["published lora", "published tlora"]
    if options.other is not None:
        compared.append(getattr(load_other(options.other), "NAME", options.other.stem))
    wanted = [(method, mode) for mode in options.modes for method in (BARE, *options.methods)]
    recorded = device.type == "cuda"
    wanted = [
        (method, mode)
        for method, mode in wanted
        if mode != GRAPH or (recorded and method != BARE and METHODS[method].size == "rank")
    ]
    wanted += [(method, "eager") for method in compared]
    if (BARE, "eager") not in wanted:
        wanted.insert(0, (BARE, "eager"))
    if setting.config is not None:
        wanted = [(method, mode) for method, mode in wanted if method != "gsoft_double"]

    def make(method: str, mode: str) -> Case:
        return make_case(workload, method, mode, options.other)

    memory = {}
    if device.type == "cuda":
        for method, mode in wanted:
            memory[method, mode] = peak_memory(lambda m=method, o=mode: make(m, o), device)
            gc.collect()
    cases = [make(method, mode) for method, mode in wanted]
    measured = measure(cases, device, options.rounds, options.steps)
    size = {"side": setting.side, "tokens": setting.tokens, "config": setting.config}
    floor = count_step(setting.family, None, **size)
    rate = matmul_rate(device, setting.dtype)
    results["about"] |= {"floor_flops": floor.flops, "flops_per_s": rate}
    reference = measured[f"{BARE} eager"]["losses"]
    results["cases"] = []
    for case in cases:
        row = {"method": case.method, "mode": case.mode, **measured[case.name]}
        row["floor_share"] = floor.flops / rate / row["step"]["median"]
        # All start at the bare denoiser, so the first loss must be its loss.
        row["loss_differs"] = abs(row["losses"][0] / reference[0] - 1)
        if case.method in (BARE, *METHODS):
            own = None if case.method == BARE else case.method
            counted = count_step(setting.family, own, setting.rank, **size)
            row |= {"operations": counted.operations, "flops": counted.flops}
            row["flops_to_floor"] = counted.flops / floor.flops
        if (case.method, case.mode) in memory:
            found = memory[case.method, case.mode]
            row |= {"peak_gb": found["allocated"], "reserved_gb": found["reserved"]}
        results["cases"].append(row)


def _denoiser(setting: Setting) -> Any:
    if setting.base != TOY:
        return random_denoiser(setting.family, setting.device, setting.dtype)
    family = FAMILIES[setting.family]
    pipeline = load_pipeline(family, Base(TOY), parts=("denoiser",), dtype=setting.dtype)
    return getattr(pipeline, family.denoiser).to(setting.device)


def _cold(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Train with the command line; on a GPU from a base of true size with random weights."""
    toy = setting.base == TOY
    steps = options.cold_steps or (100 if toy else 800)
    base = TOY if toy else str(write_random_base(setting.family, options.out / "bases"))
    found = {}
    for method in [m for m in options.methods if m in ("lora", "tlora")] or options.methods[:1]:
        found[method] = measure_cold(
            {
                "family": setting.family,
                "base": base,
                "concept": {"images": "toy:pip/1", "class": "star"},
                "adapter": {"method": method},
                "train": {
                    "steps": 10 if options.quick else steps,
                    "resolution": 64 if toy else 1024,
                    "precision": "fp32" if setting.device.type == "cpu" else "bf16",
                },
            }
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
