#!/usr/bin/env python3
"""Try files that are damaged, mistaken or hostile, and say what became of them.

    python scripts/fuzz.py                                   all kinds, the full counts
    python scripts/fuzz.py --recipes 500 --seed 7
    python scripts/fuzz.py --adapters 1 --first 1234        one case again

Recipes (one in ten a grid), adapter files, pictures and masks, run folders and prompts files, lists
of photos, axes of sheets, studies and evaluations are made from a seed and the case's number. Each
must be taken, or refused with a message: no other exception, no more than 10 seconds or 2 GB, no
program started, no file written elsewhere. The exit status is 1 if anything else happened.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

from breaking import adapters, folders, lists, pictures, recipes
from breaking.guard import try_all

KINDS = {
    "recipes": (recipes.prepare, 5000),
    "adapters": (adapters.prepare, 2000),
    "pictures": (pictures.prepare, 500),
    "folders": (folders.prepare, 1000),
    "lists": (lists.prepare, 1000),
}
"""Name -> what makes the cases, and how many are tried."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the cases and print what became of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for kind, (_, count) in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, metavar="COUNT", help=f"full: {count}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    options = parser.parse_args(arguments)
    asked = {kind: getattr(options, kind) for kind in KINDS}
    if all(count is None for count in asked.values()):
        asked = {kind: count for kind, (_, count) in KINDS.items()}
    wrong = 0
    for kind, count in asked.items():
        if not count:
            continue
        with tempfile.TemporaryDirectory() as folder:
            make = KINDS[kind][0](Path(folder), options.seed)
            numbers = range(options.first, options.first + count)
            found = try_all(kind, make, numbers, Path(folder))
        print(found, flush=True)
        wrong += len(found.faults)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
