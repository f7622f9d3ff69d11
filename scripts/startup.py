#!/usr/bin/env python3
"""Measure what `tlora train` of one step on toy-sdxl costs beside a bare script of diffusers.

    python scripts/startup.py                  # medians of 5 rounds, and their ratio
    python scripts/startup.py --rounds 11

The bare script loads the same folder with diffusers, encodes a prompt, and runs the UNet forward
and backward once. Both run in turns, each in a process of its own on one thread; what counts is
processor time (user and system), which other programs on the machine disturb least.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "configs" / "toy_sdxl.yaml"
BASE = ROOT / "tlora_cli" / "toyworld" / "models" / "toy-sdxl"
LIMIT = 1.1
"""Ratio that must not be exceeded."""

BARE = """
import sys

import torch
from diffusers import StableDiffusionXLPipeline

pipeline = StableDiffusionXLPipeline.from_pretrained(sys.argv[1], dtype=torch.float32)
with torch.no_grad():
    text, _, pooled, _ = pipeline.encode_prompt(
        "a photo of a sks cat", do_classifier_free_guidance=False
    )
channels, side = pipeline.unet.config.in_channels, 8
noisy = torch.randn(1, channels, side, side)
size = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])
predicted = pipeline.unet(
    noisy, 500, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": size}
).sample
torch.nn.functional.mse_loss(predicted, torch.randn_like(noisy)).backward()
"""


@dataclass(frozen=True)
class Cost:
    """Seconds of a process: of the processor, and from its start to its end."""

    processor: float
    wall: float


def bare() -> Cost:
    """Return the cost of the bare script."""
    return measure([sys.executable, "-c", BARE, str(BASE)])


def train() -> Cost:
    """Return the cost of `tlora train` of one step, without previews."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ("train.steps=1", "train.preview=null", f"output.dir={folder}/run")
        words = [word for setting in settings for word in ("--set", setting)]
        return measure(
            [sys.executable, "-m", "tlora_cli", "train", "--config", str(CONFIG), *words]
        )


def measure(command: Sequence[str]) -> Cost:
    """Run a command and return its cost, its children's included.

    Raises:
        RuntimeError: if it fails; what it said is told.
    """
    search = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryFile("w+") as log:
        before = os.times()
        ended = subprocess.run(
            command, stdout=log, stderr=log, env={**environment, "PYTHONPATH": search}, cwd=ROOT
        )
        after = os.times()
        if ended.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command[:4])} failed:\n{log.read()}")
    used = after.children_user - before.children_user
    used += after.children_system - before.children_system
    return Cost(used, after.elapsed - before.elapsed)


def main() -> int:
    """Measure in turns and print medians; return 1 if the ratio is above `LIMIT`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    bare(), train()  # what the disk must fetch and Python compile, it has then
    costs: dict[str, list[Cost]] = {"bare": [], "train": []}
    for _ in range(rounds):
        costs["bare"].append(bare())
        costs["train"].append(train())
    print(f"processor time, median of {rounds} rounds (seconds; wall time in parentheses)")
    medians = {name: median(one.processor for one in found) for name, found in costs.items()}
    for name, found in costs.items():
        wall = median(one.wall for one in found)
        print(f"  {name:6} {medians[name]:6.2f}  ({wall:.2f})")
    ratio = medians["train"] / medians["bare"]
    print(f"  ratio  {ratio:6.3f}  (at most {LIMIT})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
