"""Merge our SDXL kohya file with the real sd-scripts, and compare with tlora's own update.

    python scripts/other_programs/sd_scripts.py --sd-scripts FOLDER [--python PYTHON]

FOLDER is a checkout of kohya-ss/sd-scripts; PYTHON has what it needs. A UNet of sd-scripts' own
class, with SDXL's blocks and a tenth of its width, gets random weights; its merging program and its
network module put the file into them. Prints a table; exits 1 if a weight differs by more than a
hundred-thousandth of the largest change, or another number of layers was changed. Takes a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from tlora_cli import RankSchedule
from tlora_cli.families.sdxl import SDXL
from tlora_cli.formats import FORMATS, AdapterInfo, AdapterWeights
from tlora_cli.injection.load import matrix_layers, rows_of

WIDTH, RANK = 32, 4
TOLERANCE = 1e-5
UNET: dict[str, Any] = {
    **SDXL.standard_denoiser,
    "block_out_channels": (WIDTH, 2 * WIDTH, 4 * WIDTH),
    "attention_head_dim": (1, 1, 2),
}
PROBE = Path(__file__).parent / "sd_scripts_probe" / "__init__.py"


def prepare(work: Path) -> None:
    """Write a base, the kohya file of a T-LoRA on all its layers, and the base with its update."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(**UNET)
    base = {name: tensor.clone() for name, tensor in unet.state_dict().items()}
    save_file(base, work / "base.safetensors")
    layers = {}
    for name, layer in SDXL.target_layers(unet, "all").items():
        out, *inner = layer.weight.shape
        down = 0.1 * torch.randn(2 * RANK, *inner)
        up = 0.1 * torch.randn(out, 2 * RANK, *[1 for _ in inner[1:]])
        layers[name] = (down, up)
        base[f"{name}.weight"] += (up.flatten(1) @ down.flatten(1)).view_as(layer.weight)
    save_file(base, work / "merged.safetensors")
    info = AdapterInfo(method="tlora")
    weights = AdapterWeights(layers, 2, RankSchedule(RANK, 2), "sdxl", info)
    write = FORMATS["kohya"].write
    assert write is not None
    write(work / "kohya.safetensors", weights, rows_of(matrix_layers(unet)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sd-scripts", type=Path, required=True, help="a checkout of sd-scripts")
    parser.add_argument("--python", default=sys.executable, help="Python that can run it")
    options = parser.parse_args()
    folders = [options.sd_scripts, options.sd_scripts / "networks"]
    paths = [*map(str, map(Path.absolute, folders)), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work)
        done = subprocess.run(
            [options.python, PROBE, work, str(WIDTH)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        rows = json.loads((work / "rows.json").read_text())
    print("| | layers changed | of | largest difference |\n|---|---|---|---|")
    for program, changed, expected, difference in rows:
        print(f"| {program} | {changed} | {expected} | {difference:.1e} |")
    if any(changed != expected or off > TOLERANCE for _, changed, expected, off in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
