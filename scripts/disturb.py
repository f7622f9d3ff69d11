#!/usr/bin/env python3
"""Disturb every command, and print what became of it as a table.

    python scripts/disturb.py                             all commands; minutes to an hour
    python scripts/disturb.py --only train --only sample
    python scripts/disturb.py --signals TERM --moments 2  fewer

Each command is sent TERM, HUP and INT at five moments of its time, also as process 1, and writes
into a folder that is read-only and one on a full disk. The exit status is 1 if a command ended with
another status than docs/service.md has for it, showed a traceback, or left something half written.
Process 1 and the folders need root; without it they are left out, and that is said.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

from breaking import disturbed
from breaking.commands import COMMANDS, Desk, file_of, photo, recipe
from breaking.disturbed import MOMENTS, Ended, expected
from make_tiny_models import write_tiny_sdxl

# Imported before the forks, not after each.
import tlora_cli.cli.commands
import tlora_cli.comparison.local
import tlora_cli.comparison.preload
import tlora_cli.evaluation.run
import tlora_cli.sampling.sample
import tlora_cli.tools.merge

tlora_cli.comparison.local.START_METHOD = "fork"
ROOT = os.geteuid() == 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Disturb the commands and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", action="append", choices=COMMANDS, help="repeat for more")
    parser.add_argument("--signals", nargs="+", default=["TERM", "HUP", "INT"])
    parser.add_argument("--moments", type=int, default=len(MOMENTS), help="of the five, so many")
    options = parser.parse_args(arguments)
    numbers = [signal.Signals[f"SIG{name}"] for name in options.signals]
    moments = MOMENTS[:: -(-len(MOMENTS) // options.moments)]
    wrong = 0
    print("| command | disturbed by | statuses | saved or left | in words |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        os.environ["TLORA_CACHE"] = f"{place}/cache"
        desk = make_desk(Path(place))
        for name in options.only or COMMANDS:
            for kind, ends, faults in tried(name, desk, numbers, moments):
                wrong += bool(faults)
                print(_row(name, kind, ends, faults), flush=True)
    if not ROOT:
        print("\nnot root: no process 1, no folder that can't be written")
    return 1 if wrong else 0


def make_desk(place: Path) -> Desk:
    """Make a base and an adapter."""
    base = place / "tiny-sdxl"
    write_tiny_sdxl(base)
    desk = Desk(base, place / "run" / "adapter.safetensors", place / "run", place / "out")
    photo(desk.folder)
    words = ["train", file_of(desk, "first.yaml", recipe(desk, desk.run))]
    ended = disturbed.run(words, place)
    assert ended.status == 0, ended.said
    return desk


def tried(
    name: str, desk: Desk, numbers: Sequence[signal.Signals], moments: Sequence[float]
) -> Iterator[tuple[str, list[Ended], list[str]]]:
    """Yield kind of disturbance, how the command ended each time, and what was out of order."""
    count = 0

    def fresh() -> Path:
        nonlocal count
        count += 1
        return desk.folder.parent / f"{name.replace(' ', '-')}-{count}"

    def ends_in(folder: Path, **more: object) -> Ended:
        words = COMMANDS[name](desk, folder)
        return disturbed.run(words, folder, **more)  # type: ignore[arg-type]

    folder = fresh()
    folder.mkdir()
    alone = ends_in(folder)
    yield "nothing", [alone], alone.faults(expected("alone"))
    for first in (False, True) if ROOT else (False,):
        for number in numbers:
            ends = []
            for share in moments:
                (folder := fresh()).mkdir()
                after = share * alone.seconds
                ends.append(ends_in(folder, number=number, after=after, first=first))
            faults = [one for end in ends for one in end.faults(expected("", number))]
            yield f"{number.name}{', as process 1' if first else ''}", ends, faults
    for kind, made in (("read-only", disturbed.read_only), ("full", disturbed.full)):
        if ROOT and name != "validate":  # which writes nothing
            with made(fresh()) as folder:
                ended = ends_in(folder)
                yield f"{kind} folder", [ended], ended.faults(expected(kind))


def _row(name: str, kind: str, ends: Sequence[Ended], faults: Sequence[str]) -> str:
    statuses = Counter(end.status for end in ends)
    told = ", ".join(f"{times} x {status}" for status, times in sorted(statuses.items()))
    files = sorted({Path(file).name for end in ends for file in end.left if ".lock" not in file})
    left = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    words = next((end.headline for end in ends if end.status), "")
    shown = f"WRONG: {'; '.join(sorted(set(faults)))}" if faults else words
    return f"| {name} | {kind} | {told} | {left or '-'} | {shown.replace('|', '/')} |"


if __name__ == "__main__":
    sys.exit(main())
