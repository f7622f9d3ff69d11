"""The checks of `tlora doctor`: is this machine fit to train, and if not, what to do."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import HfApi, constants, get_session, get_token

from tlora_cli.families import FAMILIES
from tlora_cli.foundation.bundled import shipped
from tlora_cli.foundation.devices import (
    ACCELERATOR,
    compiled_capabilities,
    gpu_capability,
    gpu_failure,
    supports_bf16,
)
from tlora_cli.foundation.errors import Status, system_reason
from tlora_cli.foundation.files import existing_parent, free_space
from tlora_cli.foundation.packages import installed_version
from tlora_cli.tools.preflight.findings import Finding, gigabytes, ok, problem, warning
from tlora_cli.tools.preflight.gpus import (
    Card,
    cards_on_the_bus,
    driver_cards,
    free_memory,
    threads,
    usable_card,
)
from tlora_cli.tools.preflight.libraries import look_at_libraries, look_at_optional, look_at_version
from tlora_cli.tools.preflight.machine_checks import look_at_environment
from tlora_cli.training.execution import missing_compiler

CUDA_TORCH = "pip install --force-reinstall -c constraints.txt torch (on Linux the CUDA build)"
DOWNLOADS = 40_000_000_000
"""Bytes of room that the cache should have: the standard base of any family fits in."""
LITTLE_MEMORY = 4_000_000_000
SECONDS = 5.0
"""Seconds that the Hub may take to answer."""


def examine_machine() -> list[Finding]:
    """Return what is found of this machine."""
    card, seen = usable_card(), driver_cards()
    return [
        ok("python", f"{platform.python_version()} on {platform.platform()}"),
        *look_at_driver(seen, cards_on_the_bus()),
        *look_at_torch(card, bool(seen) or cards_on_the_bus() > 0),
        *look_at_card(card),
        *look_at_libraries(),
        look_at_optional("xformers", "train.attention: xformers", card is not None),
        look_at_optional("bitsandbytes", "int8, nf4 and adamw8bit", card is not None),
        _compiler(card),
        *_hub(),
        *_cache(Path(constants.HF_HUB_CACHE)),
        *look_at_environment(),
        *_processor(card is None),
        _folder(),
    ]


def look_at_driver(seen: list[Card] | None, plugged_in: int) -> Iterator[Finding]:
    """Yield what is found of the NVIDIA driver.

    Args:
        seen: the cards that it knows; None without a driver.
        plugged_in: how many cards are on the bus.
    """
    if seen:
        yield ok("driver", f"{seen[0].driver}, {', '.join(card.name for card in seen)}")
    elif plugged_in or seen is not None:
        yield warning(
            "driver",
            "an NVIDIA card is there, but its driver does not answer"
            if plugged_in
            else "nvidia-smi finds no card",
            "install NVIDIA's driver and reboot; in a container, start it with --gpus all",
        )
    else:
        small = next(iter(shipped().bases))
        yield ok("driver", f"no NVIDIA card: training runs on the CPU, fit for {small} only")


def look_at_torch(card: Card | None, has_card: bool) -> Iterator[Finding]:
    """Yield what is found of PyTorch.

    Args:
        card: that it can use.
        has_card: whether the machine has one.
    """
    version = installed_version("torch")
    finding = look_at_version("torch", version, None)
    yield finding
    if card is not None:
        yield ok(ACCELERATOR, f"{torch.version.cuda}")
    elif not has_card:
        build = f"the build for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
        yield ok(ACCELERATOR, f"no card; torch is {build}")
    elif torch.version.cuda is None:
        yield warning(
            ACCELERATOR, f"a card is there, but torch {version} is a CPU build", CUDA_TORCH
        )
    else:
        yield warning(
            ACCELERATOR,
            f"torch can't use the card: {gpu_failure()}",
            f"update the driver to one for CUDA {torch.version.cuda}, and check "
            "CUDA_VISIBLE_DEVICES",
        )


def look_at_card(card: Card | None) -> Iterator[Finding]:
    """Yield what is found of the card that is used, and of bf16 on it or on the CPU."""
    if card is None:
        yield ok("bf16", "computed on the CPU")
        return
    major, minor = gpu_capability()
    text = f"{card.name}, {gigabytes(card.total)}, compute capability {major}.{minor}"
    taken = card.used or 0
    if taken > card.total // 20:
        yield warning(
            "card",
            f"{text}; other programs take {gigabytes(taken)}",
            "close them before a run: nvidia-smi lists them",
        )
    else:
        yield ok("card", text)
    known = compiled_capabilities()
    if known and major not in known:
        yield problem(
            "card",
            f"this torch has no code for compute capability {major}.{minor}",
            "install a torch build that has: https://pytorch.org/get-started/locally",
            Status.MISSING,
        )
    if supports_bf16(in_hardware=True):
        yield ok("bf16", "the card computes it")
    else:
        yield warning("bf16", "the card has none", "set train.precision: fp16 in recipes")


def _compiler(card: Card | None) -> Finding:
    lacking = missing_compiler(torch.device(ACCELERATOR if card else "cpu"))
    if lacking:
        return warning("compiler", f"train.execution: compile needs {lacking}", "install it")
    return ok("compiler", "train.execution: compile can be used")


def _hub() -> Iterator[Finding]:
    """Yield what is found of the token and of the way to the Hub; the token is never shown."""
    token, endpoint = get_token(), constants.ENDPOINT
    login = "for gated models such as FLUX.1-dev run `hf auth login`"
    if constants.HF_HUB_OFFLINE:
        yield ok("hub token", "one is set" if token else "none is set")
        yield warning(
            "hub", "HF_HUB_OFFLINE is set: only what is in the cache can be used",
            "unset it to download models",
        )  # fmt: skip
        return
    try:
        answer = get_session().head(endpoint, timeout=SECONDS)
    except Exception as error:  # whatever the network library raises
        yield ok("hub token", "one is set, not tried" if token else "none is set")
        yield warning(
            "hub",
            f"{endpoint} can't be reached: {type(error).__name__}",
            "check the network or the proxy; with all models in the cache, set HF_HUB_OFFLINE=1",
        )
        return
    yield ok("hub", f"{endpoint} answers ({answer.status_code})")
    if not token:
        yield warning("hub token", "none is set", login)
        return
    try:
        name = HfApi().whoami(token=token)["name"]
    except Exception as error:
        reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        yield warning("hub token", f"it is not accepted: {reason}", "run `hf auth login` again")
    else:
        yield ok("hub token", f"it is {name}'s")


def _cache(folder: Path) -> Iterator[Finding]:
    free = free_space(folder)
    if refused := _refusal(folder):
        yield warning(
            "hub cache",
            f"{folder} can't be written ({refused}): nothing can be downloaded",
            "set HF_HUB_CACHE to a folder that can",
        )
    elif free < DOWNLOADS:
        yield warning(
            "hub cache",
            f"{folder}: {gigabytes(free)} free; {_sizes()}",
            "free disk space, or set HF_HUB_CACHE to a folder on another disk",
        )
    else:
        yield ok("hub cache", f"{folder}: {gigabytes(free)} free")


def _sizes() -> str:
    """Return what the standard bases take, the largest first."""
    largest, *others = sorted(FAMILIES.values(), key=lambda kind: -kind.standard_gigabytes)
    told = f"{largest.standard_title} is {largest.standard_gigabytes} GB"
    return told + "".join(f", {one.standard_title} {one.standard_gigabytes} GB" for one in others)


def _refusal(folder: Path) -> str:
    """Return why nothing can be written where `folder` is or would be made, or nothing."""
    try:
        with tempfile.TemporaryFile(dir=existing_parent(folder)):
            return ""
    except OSError as error:
        return system_reason(error)


def _processor(trains: bool) -> Iterator[Finding]:
    """Yield what is found of the processor; `trains` if that is where training would run."""
    there, used = threads(), torch.get_num_threads()
    text = f"{used} of {there} processors used"
    if trains and used < there // 2:
        limit = os.environ.get("OMP_NUM_THREADS")
        why = f" as OMP_NUM_THREADS is {limit}" if limit else ""
        yield warning("cpu", f"{text}{why}", "unset OMP_NUM_THREADS to train faster")
    else:
        yield ok("cpu", text)
    free = free_memory()
    if free is None:
        yield ok("memory", "how much is free is not known on this system")
    elif free < LITTLE_MEMORY:
        yield warning(
            "memory",
            f"{gigabytes(free)} free",
            "close other programs; weights pass through it",
        )
    else:
        yield ok("memory", f"{gigabytes(free)} free")


def _folder() -> Finding:
    here = Path.cwd()
    if refused := _refusal(here):
        return warning(
            "this folder",
            f"{here} can't be written ({refused})",
            "give output.dir as an absolute path",
        )
    return ok("this folder", f"{here}: can be written, {gigabytes(free_space(here))} free")
