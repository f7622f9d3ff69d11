#!/usr/bin/env python3
"""Measure how fast the start, training and sampling are on this computer.

    python scripts/bench.py OUT                         on whatever is there
    python scripts/bench.py OUT --methods lora,tlora --modes eager --rounds 15
    python scripts/bench.py OUT --other scripts/their_lora.py
    python scripts/bench.py OUT --minutes 8             on a GPU that is lent: the most asked first
    python scripts/bench.py OUT --fill                  writes OUT's figures into the docs

On a GPU: the true SDXL and FLUX configurations with random weights, in bf16, nothing is downloaded.
On a CPU: the built-in toy-sdxl. Every method and mode is timed beside the bare denoiser and the
published formulation, in turns. OUT gets BASE.json and BASE.md, after each piece of work: what was
measured stays, whatever comes next. `docs/performance.md` explains the figures.
"""

from __future__ import annotations

import argparse
import gc
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import torch
from benchmark.about import about
from benchmark.cases import BARE, MODES, Case, Setting, Workload, load_other, make_case, methods
from benchmark.cold import measure_cold
from benchmark.counting import count_step
from benchmark.inputs import SIDE
from benchmark.page import fill
from benchmark.pieces import (
    COLD,
    PARTS,
    START,
    TESTS,
    Clock,
    Piece,
    Wanted,
    all_of_it,
    by_worth,
    described,
    gpu_tests,
    run_all,
)
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
PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the results; return the exit status."""
    options = _parser().parse_args(arguments)
    command = shlex.join(["python", "scripts/bench.py", *(arguments or sys.argv[1:])])
    try:
        if options.fill:
            print(f"{PAGE}: {fill(options.out, PAGE)} rows")
            return 0
        Bench(options, command).run()
    except (OSError, RuntimeError, ValueError, UserError) as error:
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
    parser.add_argument(
        "--parts",
        type=_names(*PARTS),
        default=list(PARTS),
        help="of start, steps, cold, and with --minutes tests, which need a GPU; default: all",
    )
    parser.add_argument(
        "--minutes", type=float, help="stop about then; what is asked for most comes first"
    )
    parser.add_argument(
        "--fill", action="store_true", help="measure nothing: write OUT's figures into the docs"
    )
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


class Bench:
    """A benchmark: the bases it loads, and the results so far.

    Args:
        options: of the command line.
        command: the line itself, for the record.
    """

    def __init__(self, options: argparse.Namespace, command: str) -> None:
        self.options, self.command = options, command
        if options.threads:
            torch.set_num_threads(options.threads)
        if options.quick:
            options.rounds, options.steps = min(options.rounds, 2), min(options.steps, 1)
        self.clock = Clock(None if options.minutes is None else 60 * options.minutes)
        self.results: dict[str, dict[str, Any]] = {}
        self._workload: tuple[str, Workload] | None = None

    def run(self) -> None:
        """Measure piece by piece, and say at the end what there was no time for."""
        options = self.options
        gpu = torch.cuda.is_available()
        parts = [part for part in options.parts if gpu or part != TESTS]
        wanted = _wanted(options, gpu)
        cold = [m for m in options.methods if m in ("lora", "tlora")] or options.methods[:1]
        order = all_of_it if options.minutes is None else by_worth
        pieces = order(options.bases, parts, wanted, cold)
        left_out = run_all(pieces, self.clock, self._piece, lambda text: print(f"# {text}"))
        for base, results in self.results.items():
            if base:
                print(markdown(results))
        if left_out:
            print(f"no time for: {'; '.join(described(piece) for piece in left_out)}")

    def _piece(self, piece: Piece) -> None:
        results = self.results.setdefault(piece.base, {})
        if piece.part == TESTS:
            results["tests"] = gpu_tests(self.clock.left)
            print(f"tests of a GPU: {results['tests']}")
            self._write("tests", results, None)
            return
        setting = _setting(piece.base, self.options)
        results.setdefault("about", about(setting, self.options, self.command))
        if piece.part == START:
            toy = piece.base == TOY
            shown = setting.config if self.options.quick else None
            results["start"] = measure_start(setting.family, setting.rank if toy else 64, shown)
        elif piece.part == COLD:
            self._workload = None  # the run needs the memory
            gc.collect()
            found = _cold(setting, self.options, [method for method, _ in piece.wanted])
            results["cold"] = {**results.get("cold", {}), **found}
        else:
            _steps(self._work(setting), self.options, results, piece.wanted, self.clock)
        self._write(piece.base, results, markdown(results))

    def _work(self, setting: Setting) -> Workload:
        if self._workload is None or self._workload[0] != setting.base:
            self._workload = None
            gc.collect()
            self._workload = setting.base, Workload(setting, _denoiser(setting))
        return self._workload[1]

    def _write(self, name: str, results: dict[str, Any], page: str | None) -> None:
        out = self.options.out
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / f"{name}.json", json.dumps(results, indent=1))
        if page is not None:
            write_text(out / f"{name}.md", page)


def _setting(base: str, options: argparse.Namespace) -> Setting:
    toy = base == TOY
    device = choose_device("auto", "fp32")
    return Setting(
        family="sdxl" if toy else base,
        base=base,
        side=TOY_SIDE if toy else SIDE,
        tokens=TOY_TOKENS if toy else FAMILIES[base].text_tokens,
        rank=options.rank or (32 if toy else 64),
        device=device,
        dtype=torch.float32 if device.type == "cpu" else torch.bfloat16,
        config=str(model_folder(TOY)) if toy else None,
    )


def _wanted(options: argparse.Namespace, recorded: bool) -> list[Wanted]:
    """Return every method in every mode that there is here, and what they are compared with."""
    wanted = [(method, mode) for mode in options.modes for method in (BARE, *options.methods)]
    wanted = [
        (method, mode)
        for method, mode in wanted
        if mode != GRAPH or (recorded and method != BARE and METHODS[method].size == "rank")
    ]
    compared = ["published lora", "published tlora"]
    if options.other is not None:
        compared.append(getattr(load_other(options.other), "NAME", options.other.stem))
    wanted += [(method, "eager") for method in compared]
    if (BARE, "eager") not in wanted:
        wanted.insert(0, (BARE, "eager"))
    return wanted


def _steps(
    workload: Workload,
    options: argparse.Namespace,
    results: dict[str, Any],
    wanted: Sequence[Wanted],
    clock: Clock,
) -> None:
    """Add to `cases`: methods in modes, beside the bare denoiser."""
    setting = workload.setting
    device = setting.device
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
    measured = measure(cases, device, options.rounds, options.steps, lambda: clock.left)
    size = {"side": setting.side, "tokens": setting.tokens, "config": setting.config}
    record = results["about"]
    if "floor_flops" not in record:  # the same in every piece
        record["floor_flops"] = count_step(setting.family, None, **size).flops
        record["flops_per_s"] = matmul_rate(device, setting.dtype)
    floor, rate = record["floor_flops"], record["flops_per_s"]
    reference = measured[f"{BARE} eager"]["losses"]
    shown = results.setdefault("cases", [])
    known = {(row["method"], row["mode"]) for row in shown}
    for case in cases:
        if (case.method, case.mode) in known:
            continue  # the bare denoiser is in every piece
        row = {"method": case.method, "mode": case.mode, **measured[case.name]}
        row["floor_share"] = floor / rate / row["step"]["median"]
        # All start at the bare denoiser, so the first loss must be its loss.
        row["loss_differs"] = abs(row["losses"][0] / reference[0] - 1)
        if case.method in (BARE, *METHODS):
            own = None if case.method == BARE else case.method
            counted = count_step(setting.family, own, setting.rank, **size)
            row |= {"operations": counted.operations, "flops": counted.flops}
            row["flops_to_floor"] = counted.flops / floor
        if (case.method, case.mode) in memory:
            found = memory[case.method, case.mode]
            row |= {"peak_gb": found["allocated"], "reserved_gb": found["reserved"]}
        shown.append(row)


def _denoiser(setting: Setting) -> Any:
    if setting.base != TOY:
        return random_denoiser(setting.family, setting.device, setting.dtype)
    family = FAMILIES[setting.family]
    pipeline = load_pipeline(family, Base(TOY), parts=("denoiser",), dtype=setting.dtype)
    return getattr(pipeline, family.denoiser).to(setting.device)


def _cold(
    setting: Setting, options: argparse.Namespace, methods: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Train with the command line; on a GPU from a base of true size with random weights."""
    toy = setting.base == TOY
    steps = options.cold_steps or (100 if toy else 800)
    base = TOY if toy else str(write_random_base(setting.family, options.out / "bases"))
    found = {}
    for method in methods:
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
