"""Pipelines into folders, whole or not at all."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from diffusers import DiffusionPipeline

NOTHING_NAMED: Mapping[str, str] = {}


def write_pipeline(
    make: Callable[[], DiffusionPipeline],
    folder: Path,
    seed: int,
    named: Mapping[str, str] = NOTHING_NAMED,
) -> None:
    """Make a pipeline from a seed and save it; a folder is there whole or not at all.

    Args:
        make: the pipeline.
        folder: the new folder.
        seed: of the weights.
        named: part -> the class of transformers that its index says, where that is another one.
    """
    refuse_contents(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        pipeline = make()
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        pipeline.save_pretrained(partial)
        if named:
            index = partial / "model_index.json"
            said = json.loads(index.read_text(encoding="utf-8"))
            said |= {part: ["transformers", kind] for part, kind in named.items()}
            index.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
        partial.chmod(0o755)
        partial.replace(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def refuse_contents(folder: Path) -> None:
    """Raise FileExistsError if the folder is a file or holds anything."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if folder.exists() or folder.is_symlink():
        raise FileExistsError(
            f"{folder} exists already and is left as it is; remove it or name another folder"
        )
