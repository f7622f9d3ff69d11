"""The files of a checkpoint: written together, and compared with their checksums when read.

`checkpoint-000100` holds

    adapter.safetensors    what is trained, or its average: ready to sample, beside its run
    training_state.pt      all else that resumes

and above it, once a run, lies `start.safetensors`, what the adapter keeps of its start. Nothing is
there twice. Older checkpoints (state version 1) hold all in `training_state.pt`, and the adapter
once more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tlora_cli.formats.checkpoint_file import START_FILE, checksum, keep_start, read_start
from tlora_cli.formats.pickles import check_archive
from tlora_cli.formats.tlora_file import WORD
from tlora_cli.injection.adapter import Adapter
from tlora_cli.injection.saved_tensors import put, save_trained, start_tensors, trained_tensors
from tlora_cli.training.run_folder import step_of

STATE_FILE = "training_state.pt"
ADAPTER_FILE = "adapter.safetensors"
WHOLE_STATE = 1
"""Version of a state that holds the adapter."""

_LOST = (
    "put it back: every checkpoint of the run needs it. If it is lost, start again with another "
    "output.dir"
)


def write_adapter(adapter: Adapter, folder: Path, start: str | None) -> str:
    """Write the adapter file of a checkpoint; return the checksum of what is trained."""
    save_trained(adapter, folder / ADAPTER_FILE, start)
    return checksum(trained_tensors(adapter))


def write_start(adapter: Adapter, folder: Path) -> str | None:
    """Write what an adapter keeps of its start, if it isn't there; return its checksum.

    Args:
        adapter: of the run.
        folder: of the run's checkpoints.

    Returns:
        None if it keeps nothing of it.
    """
    tensors = start_tensors(adapter)
    return keep_start(folder / START_FILE, tensors) if tensors else None


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Return what a checkpoint's state holds; any kind of damage raises an Exception of any kind.

    What its adapter file holds is `adapter` in it.
    """
    check_archive(checkpoint / STATE_FILE)
    saved: dict[str, Any] = torch.load(
        checkpoint / STATE_FILE, map_location="cpu", weights_only=True
    )
    if saved["step"] != step_of(checkpoint):
        raise ValueError(f"it holds step {saved['step']}")
    if saved["version"] != WHOLE_STATE:
        saved["adapter"] = load_file(checkpoint / ADAPTER_FILE)
    return saved


def restore_trained(adapter: Adapter, saved: dict[str, Any]) -> None:
    """Write what a checkpoint's adapter file holds over what is trained.

    Raises:
        KeyError, ValueError: if the file is damaged, or of another adapter.
    """
    own, there = trained_tensors(adapter), saved["adapter"]
    # A word's keys had no prefix before; a run that began so goes on.
    names = {key: key if key in there else key.removeprefix(WORD) for key in own}
    found = {name: there[name] for name in names.values()}
    if checksum(found) != saved["trained"]:
        raise ValueError(f"{ADAPTER_FILE} is damaged")
    put(own, {key: found[name] for key, name in names.items()})


def restore_start(adapter: Adapter, folder: Path, wanted: str | None) -> None:
    """Make the start that of a run; mostly its seed has given it again already.

    So a lost or damaged file locks nobody out, and neither does another machine, on which the last
    bits of the same seed may differ.

    Args:
        adapter: of the run.
        folder: of the run's checkpoints.
        wanted: the start's checksum.

    Raises:
        UserError: if it is neither here nor in its file.
        ValueError: if it is of another adapter.
    """
    own, file = start_tensors(adapter), folder / START_FILE
    if bool(own) != bool(wanted):
        raise ValueError("the start is of another adapter")
    if own and wanted and checksum(own) != wanted:
        put(own, read_start(file, wanted, _LOST))
    elif own:
        keep_start(file, own, doubt=True)
