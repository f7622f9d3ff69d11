"""Keep the state of an unfinished training in the repository, small enough to commit.

    python scripts/toyworld/keep_unfinished.py --work toyworld-work --run sdxl

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--run", default="sdxl", help="of train_sdxl.py")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    keep_vae(options.work)
    model = model_of(design_of(options.work, options.run))
    trained = [name for name, part in model.named_parameters() if part.requires_grad]
    for run, target, names in (
        (options.run, "sdxl", trained),
        ("judge", "judge", None),
        ("sdxl-text", "sdxl-text", None),
    ):
        state = torch.load(options.work / f"{run}.pt", map_location="cpu", weights_only=True)
        # The judge and the lesson train all of their parameters, which come as in the state.
        kept = shrunk(state, list(state["model"]) if names is None else names)
        torch.save(kept, FOLDER / f"{target}.pt")
        size = (FOLDER / f"{target}.pt").stat().st_size / 1e6
        print(f"{target}.pt: step {kept['step']}, {size:.1f} MB", flush=True)
        shutil.copy(options.work / f"{run}.jsonl", FOLDER / f"{target}.jsonl")
    shutil.copy(options.work / f"{options.run}.design", FOLDER / "sdxl.design")
    shutil.copy(options.work / "vae-sdxl.jsonl", FOLDER / "vae-sdxl.jsonl")


if __name__ == "__main__":
    main()
