"""Load our LyCORIS file with the real LyCORIS, in three ways, and compare with tlora's adapter.

    pip install lycoris-lora
    python scripts/other_programs/lycoris_network.py

Random T-LoRAs on tiny SDXL and FLUX models are written with `tlora convert --to lycoris`. LyCORIS
makes its modules of the file and is given the mask of five timesteps; the denoiser's answers are
compared with those of tlora's adapter. Prints a table; exits 1 if the way that docs/convert.md
names is off by more than a hundred-thousandth of the largest number. Takes a minute on an idle CPU.
"""

from __future__ import annotations

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lycoris import create_lycoris_from_weights
from lycoris.modules.tlora import compute_timestep_mask, set_timestep_mask
from published import (
    LEAST,
    RANK,
    TIMES,
    TOLERANCE,
    answers_of,
    inputs_of,
    model_of,
    write_tiny_flux,
    write_tiny_sdxl,
)
from torch import Tensor

from tlora_cli import attach, load_adapter
from tlora_cli.tools.convert import convert_file

CASES = (("sdxl", "random_last"), ("sdxl", "weights_principal"), ("flux", "random_last"))
WAYS = ("apply_to()", "load_state_dict(), apply_to()", "apply_to(), load_state_dict()")
NAMED = WAYS[2]
"""The way that docs/convert.md names."""


def answers_by_lycoris(way: str, model: Any, file: Path, family: str, inputs: Any) -> Tensor:
    """Return the answers at each timestep with LyCORIS's modules on the model."""
    network, weights = create_lycoris_from_weights(1.0, str(file), model)
    for step in way.split(", "):
        if step == "apply_to()":
            network.apply_to()
        else:
            network.load_state_dict(weights, strict=False)
    answers = []
    for t in TIMES:
        set_timestep_mask(compute_timestep_mask(int(t), 1000, RANK, LEAST))
        one = {**inputs, "t": torch.tensor([t])}
        answers.append(answers_of(family, model, one)[0])
    return torch.stack(answers)


@torch.no_grad()
def main() -> None:
    torch.manual_seed(0)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_tiny_sdxl(work / "sdxl-base")
        write_tiny_flux(work / "flux-base")
        for family, start in CASES:
            model, base = model_of(family, work), str(work / f"{family}-base")
            inputs = inputs_of(family, model.config)
            adapter = attach(model, "tlora", RANK, LEAST, init=start)
            for parameter in adapter.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
            name = f"{family}, {start}"
            ours, theirs = work / f"{name}.safetensors", work / f"{name}-lycoris.safetensors"
            adapter.save(ours)
            convert_file(ours, theirs, None, base, None, None, {}, "lycoris")
            fresh = model_of(family, work)
            load_adapter(fresh, ours)
            expected = answers_of(family, fresh, inputs)
            size, found = expected.abs().max(), {}
            for way in WAYS:
                answers = answers_by_lycoris(way, model_of(family, work), theirs, family, inputs)
                found[way] = float((answers - expected).abs().max() / size)
            rows.append((name, found))
    print(f"LyCORIS {version('lycoris-lora')}\n\n| | {' | '.join(WAYS)} |\n|---|---|---|---|")
    for name, found in rows:
        print(f"| {name} | {' | '.join(f'{found[way]:.1e}' for way in WAYS)} |")
    if any(found[NAMED] > TOLERANCE for _, found in rows):
        sys.exit(1)


if __name__ == "__main__":
    main()
