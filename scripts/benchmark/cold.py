"""A whole run from a cold start: `tlora train` as a user calls it, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any


def measure_cold(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the time of a run to its saved file, and the most memory it took.

    Args:
        recipe: values of a recipe, without `output`.

    Returns:
        `seconds`, `cpu` (the processor's seconds), `memory_gb` (the process's peak), `steps_s`
        (spent in steps alone) and `steps`.

    Raises:
        RuntimeError: if the run fails; with what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "run"
        file = Path(folder) / "recipe.yaml"  # JSON is YAML
        file.write_text(json.dumps({**recipe, "output": {"dir": str(output)}}))
        log = Path(folder) / "log.txt"
        command = [sys.executable, "-m", "tlora_cli", "train", "--config", str(file)]
        began = time.perf_counter()
        with log.open("w") as said:
            process = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
            _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()}")
        last = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
        return {
            "steps": last["step"],
            "seconds": seconds,
            "cpu": usage.ru_utime + usage.ru_stime,
            "memory_gb": usage.ru_maxrss / (1e9 if sys.platform == "darwin" else 1e6),
            "gpu_memory_gb": last["memory_gb"],
            "steps_s": last["seconds"],
        }
