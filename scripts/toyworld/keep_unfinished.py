"""Keep the state of an unfinished training in the repository, small enough to commit.

    python scripts/toyworld/keep_unfinished.py --work toyworld-work --base sdxl

What is kept of a run is the mean of its weights in half precision, its step and its time, in the
form of a checkpoint; not the weights as they were, a second mean, or the optimizer's moments. Going
on from it costs some hundred steps until the moments are there again. To go on:

    cp -r scripts/toyworld/unfinished/. toyworld-work
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from denoising import load_vae
from torch import nn
from train_flux import ToyFlux
from train_sdxl import design_of, model_of

FOLDER = Path(__file__).parent / "unfinished"


def shrunk(state: dict[str, Any], trained: list[str]) -> dict[str, Any]:
    """Return a checkpoint of the mean alone, in half precision.

    Args:
        state: of a run, from its checkpoint.
        trained: names of the parameters that the means are of, in their order.
    """
    model = dict(state["model"])
    model.update(zip(trained, state.get("averages", [model[n] for n in trained]), strict=True))
    halved = {
        name: part.half() if part.is_floating_point() else part for name, part in model.items()
    }
    return {"step": state["step"], "seconds": state.get("seconds", 0.0), "model": halved}


def keep_vae(work: Path) -> None:
    """Keep toy-sdxl's VAE in half precision, without the path it was loaded from."""
    folder = FOLDER / "vae-sdxl"
    load_vae(work, "sdxl").half().save_pretrained(folder)
    config = folder / "config.json"
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)


def keep(work: Path, run: str, trained: list[str] | None = None) -> None:
    """Keep a run's state and its log.

    Args:
        work: the work folder.
        run: its name.
        trained: parameters that it trains, in their order; None: all, as they come in the state.
    """
    state = torch.load(work / f"{run}.pt", map_location="cpu", weights_only=True)
    parts = state["model"]
    first: dict[int, str] = {}
    for name, part in parts.items():  # tied parameters have several names, and one mean
        first.setdefault(part.data_ptr(), name)
    kept = shrunk(state, list(first.values()) if trained is None else trained)
    for name, part in parts.items():
        kept["model"][name] = kept["model"][first[part.data_ptr()]]
    target = FOLDER / f"{run}.pt"
    torch.save(kept, target)
    print(f"{target.name}: step {kept['step']}, {target.stat().st_size / 1e6:.1f} MB", flush=True)
    shutil.copy(work / f"{run}.jsonl", FOLDER / f"{run}.jsonl")


def trained_by(model: nn.Module) -> list[str]:
    """Return the names of the parameters that a run of this model trains."""
    return [name for name, part in model.named_parameters() if part.requires_grad]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--base", choices=("sdxl", "flux"), default="sdxl", help="of which base")
    options = parser.parse_args()
    work = options.work
    FOLDER.mkdir(exist_ok=True)
    if options.base == "flux":
        for run in ("flux-teacher", "flux"):
            if (work / f"{run}.pt").exists():
                keep(work, run, trained_by(ToyFlux()))
    else:
        keep_vae(work)
        shutil.copy(work / "vae-sdxl.jsonl", FOLDER / "vae-sdxl.jsonl")
        keep(work, "sdxl", trained_by(model_of(design_of(work, "sdxl"))))
        shutil.copy(work / "sdxl.design", FOLDER / "sdxl.design")
    # The judge and the lesson train all of their parameters.
    for run in ("judge", f"{options.base}-text"):
        keep(work, run)


if __name__ == "__main__":
    main()
