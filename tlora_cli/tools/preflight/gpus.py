"""Graphics cards that this machine has, and its memory; nothing is put on a card by looking.

`nvidia-smi` speaks for the driver, PyTorch for what it can use. The program is asked and not
nvidia-ml-py: it comes with every driver and tells all five facts at once, so one more package for
the same answer is not worth its place among the dependencies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import psutil

from tlora_cli.foundation.devices import gpu_properties, has_accelerator
from tlora_cli.foundation.errors import UserError

NVIDIA, DISPLAY = "0x10de", "0x03"
"""PCI numbers of the vendor, and how those of the class of displays begin."""
_QUERY = "name,driver_version,memory.total,memory.used,uuid"


@dataclass(frozen=True)
class Card:
    """A GPU.

    Attributes:
        name: its model.
        total: bytes of memory.
        used: bytes that are taken at the moment; None if not known.
        driver: version of the driver; empty if not known.
        uuid: the driver's name for this very card; empty if not known.
    """

    name: str
    total: int
    used: int | None = None
    driver: str = ""
    uuid: str = ""


def driver_cards() -> list[Card] | None:
    """Return the cards that the driver sees; None without a working driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return [_parsed(line) for line in answer.stdout.splitlines() if line.count(",") == 4]


def _parsed(line: str) -> Card:
    """Return the card of a line; a number that the driver doesn't tell is `[N/A]`."""
    name, driver, total, used, uuid = (value.strip() for value in line.split(","))

    def size(text: str) -> int | None:
        return int(text) * 2**20 if text.isdecimal() else None

    return Card(name, size(total) or 0, size(used), driver, uuid)


def cards_on_the_bus(devices: Path = Path("/sys/bus/pci/devices")) -> int:
    """Return how many NVIDIA cards are plugged in, driver or not (Linux)."""

    def told(file: Path) -> str:
        return file.read_text(encoding="ascii").strip() if file.is_file() else ""

    return sum(
        told(device / "vendor") == NVIDIA and told(device / "class").startswith(DISPLAY)
        for device in (devices.iterdir() if devices.is_dir() else ())
    )


def usable_card() -> Card | None:
    """Return the card that PyTorch computes on; None if it finds none."""
    if not has_accelerator():
        return None
    found = gpu_properties()
    uuid = f"GPU-{getattr(found, 'uuid', '')}"
    same = next((card for card in driver_cards() or [] if card.uuid == uuid), None)
    used, driver = (same.used, same.driver) if same else (None, "")
    return Card(found.name, found.total_memory, used, driver, uuid)


def card_size(text: str) -> int:
    """Return the bytes of a card of "24gb" or "24".

    Raises:
        UserError: if it is no size.
    """
    number = text.lower().strip().removesuffix("gb").removesuffix("g").strip()
    try:
        size = float(number)
    except ValueError:
        size = 0.0
    if not 1 <= size <= 1000:
        raise UserError(f"--card {text} is no size of a card", do="write it like --card 24gb")
    return int(size * 2**30)


def free_memory(group: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes of main memory that can be had; None where the system doesn't say.

    Args:
        group: the control group of a container, which may set a limit; psutil doesn't know of it.
    """
    try:
        free: int = psutil.virtual_memory().available
    except (OSError, RuntimeError):  # a container without /proc
        return None
    try:
        limit = int((group / "memory.max").read_text("ascii"))
        free = min(free, max(0, limit - int((group / "memory.current").read_text("ascii"))))
    except (OSError, ValueError):
        pass  # no container, or one without a limit ("max")
    return free


def threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
