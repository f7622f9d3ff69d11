"""The machine and the settings that figures were measured with."""

from __future__ import annotations

import argparse
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import diffusers
import torch

from benchmark.cases import Setting


def about(setting: Setting, options: argparse.Namespace, command: str) -> dict[str, Any]:
    """Return the machine, the versions and the sizes of a measurement, for the record."""
    on_gpu = setting.device.type == "cuda"
    name = torch.cuda.get_device_name(setting.device) if on_gpu else _processor()
    return {
        "base": setting.base,
        "device": name,
        "kind": setting.device.type,
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
