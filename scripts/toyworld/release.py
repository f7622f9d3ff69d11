"""Put a trained model into the package: weights in half precision, its card, its checksums."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from tlora_cli.foundation.bundled import write_checksums
from tlora_cli.foundation.files import folder_atomically
from tlora_cli.toyworld.bundle import BUNDLE

COMMON = """
All pictures are drawings of the built-in world (`tlora_cli/toyworld`), 64 x 64 pixels; nothing was
downloaded and no photograph was used. Weights are stored in half precision. License: Apache-2.0,
as the program.
"""
SCORES = "\n## Figures\n"
ORIGIN = ("_name_or_path", "is_local", "local_files_only")
"""Fields of configurations that tell the folder that a part was loaded from, and how."""


def release(name: str, write: Callable[[Path], None], card: str, facts: dict[str, Any]) -> Path:
    """Write a model into the package, in place of an older one.

    Args:
        name: of the model's folder.
        write: writes the weights and configurations into a folder.
        card: the model card's text, in Markdown, without the figures.
        facts: what was measured; the card shows it, `scores.json` keeps it.

    Returns:
        The folder.
    """
    folder = BUNDLE.models / name
    if folder.exists():
        shutil.rmtree(folder)
    with folder_atomically(folder) as part:
        write(part)
        _forget_origin(part)
        (part / "README.md").write_text(f"# {name}\n\n{card.strip()}\n{COMMON}", encoding="utf-8")
    for file in folder.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    add_figures(folder, facts)
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"wrote {folder} ({size / 1e6:.1f} MB)", flush=True)
    return folder


def _forget_origin(folder: Path) -> None:
    """Take out of its configurations where a model's parts were loaded from, and how."""
    for file in [*folder.rglob("*config.json"), *folder.rglob("model_index.json")]:
        config = json.loads(file.read_text(encoding="utf-8"))
        kept = {name: value for name, value in config.items() if name not in ORIGIN}
        if kept != config:
            file.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def add_figures(folder: Path, facts: dict[str, Any]) -> None:
    """Add figures to `scores.json` and to the card, and write the checksums anew."""
    file, card = folder / "scores.json", folder / "README.md"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    known.update(facts)
    file.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
    rows = "".join(f"| {key} | {value} |\n" for key, value in known.items())
    text = card.read_text(encoding="utf-8").split(SCORES)[0]
    card.write_text(f"{text}{SCORES}\n| | |\n|---|---|\n{rows}", encoding="utf-8")
    write_checksums(folder)


def save_half(model: nn.Module, file: Path) -> None:
    """Write the weights in half precision."""
    weights = model.state_dict()
    save_file({name: part.half().contiguous() for name, part in weights.items()}, file)


def size_of(*models: nn.Module) -> str:
    """Return the number of parameters, e.g. `4.10 million`."""
    count = sum(part.numel() for model in models for part in model.parameters())
    return f"{count / 1e6:.2f} million"


def trained(log: Path) -> str:
    """Return how long a model was trained, from its log, e.g. `2600 steps, 11 minutes`.

    Raises:
        ValueError: if the log is empty.
    """
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    paced = [line for line in lines if "steps_per_second" in line]
    if not paced:
        raise ValueError(f"{log} says nothing")
    # At the median pace: a machine that was busy with other things for a while says nothing.
    pace = statistics.median(line["steps_per_second"] for line in paced)
    return f"{paced[-1]['step']} steps, {paced[-1]['step'] / pace / 60:.0f} minutes"
