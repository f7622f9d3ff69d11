"""Open our published-layout folders with the published T-LoRA code itself, and compare.

    python scripts/other_programs/published.py --code FOLDER [--python PYTHON]

FOLDER is a checkout of ControlGenAI/T-LoRA; PYTHON has what it needs. Random adapters on tiny SDXL
and FLUX pipelines are written with `tlora convert --to published`; the code's own inference loads
each folder by its hparams.yml, and the denoiser's answers at five timesteps are compared with those
of tlora's adapter. Prints a table; exits 1 if one differs by more than a hundred-thousandth of the
largest number. Takes a minute on a CPU.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()
sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from make_tiny_models import write_tiny_flux, write_tiny_sdxl
from safetensors.torch import load_file, save_file
from torch import Tensor

from tlora_cli import attach, load_adapter
from tlora_cli.tools.convert import convert_file

RANK, LEAST = 8, 3
TOLERANCE = 1e-5
TIMES = (0.0, 250.0, 500.0, 750.0, 999.0)
CASES = (
    ("sdxl", "tlora"), ("sdxl", "vanilla_tlora"), ("sdxl", "pissa"), ("sdxl", "lora"),
    ("flux", "vanilla_tlora"), ("flux", "pissa"), ("flux", "lora"),
)  # fmt: skip
PROBE = Path(__file__).parent / "published_probe" / "__init__.py"


def model_of(family: str, work: Path) -> Any:
    """Return the tiny base's denoiser, rounded as the published FLUX code loads it."""
    if family == "sdxl":
        return UNet2DConditionModel.from_pretrained(work / "sdxl-base", subfolder="unet")
    model = FluxTransformer2DModel.from_pretrained(work / "flux-base", subfolder="transformer")
    return model.bfloat16().float()


def inputs_of(family: str, config: Any) -> dict[str, Tensor]:
    chance, t = torch.Generator().manual_seed(0), torch.tensor(TIMES)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance)

    if family == "sdxl":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return {
            "t": t, "sample": draw(1, config.in_channels, 16, 16), "pooled": draw(1, pooled),
            "text": draw(1, 7, config.cross_attention_dim), "ids": torch.full((1, 6), 64.0),
        }  # fmt: skip
    return {
        "t": t, "sample": draw(1, 16, config.in_channels), "ids": torch.zeros(16, 3),
        "text": draw(1, 7, config.joint_attention_dim), "text_ids": torch.zeros(7, 3),
        "pooled": draw(1, config.pooled_projection_dim),
    }  # fmt: skip


def answers_of(family: str, model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """Return the denoiser's answers as it is; an adapter on it masks by itself."""
    answers = []
    for t in inputs["t"]:
        if family == "sdxl":
            words = {"text_embeds": inputs["pooled"], "time_ids": inputs["ids"]}
            answer = model(inputs["sample"], t, inputs["text"], added_cond_kwargs=words)
        else:
            answer = model(
                hidden_states=inputs["sample"], encoder_hidden_states=inputs["text"],
                pooled_projections=inputs["pooled"], timestep=t[None] / 1000,
                img_ids=inputs["ids"], txt_ids=inputs["text_ids"], guidance=torch.ones(1),
            )  # fmt: skip
        answers.append(answer.sample)
    return torch.stack(answers)


@torch.no_grad()
def prepare(work: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Write bases, inputs and folders; return name -> answers without and with the adapter."""
    torch.manual_seed(0)
    write_tiny_sdxl(work / "sdxl-base")
    write_tiny_flux(work / "flux-base")
    expected = {}
    for family, method in CASES:
        name, model = f"{family}-{method}", model_of(family, work)
        inputs = inputs_of(family, model.config)
        save_file(inputs, work / f"{family}.safetensors")
        bare = answers_of(family, model, inputs)
        adapter = attach(model, method, RANK, LEAST if "tlora" in method else None)
        for parameter in adapter.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        adapter.save(work / f"{name}.tlora.safetensors")
        given = {
            "placeholder": "sks",
            "class_name": "dog",
            "base_model": str(work / f"{family}-base"),
        }
        source, folder = work / f"{name}.tlora.safetensors", work / name
        convert_file(source, folder, None, given["base_model"], None, None, given, "published")
        (folder / "checkpoint-0").rename(folder / "checkpoint-800")
        fresh = model_of(family, work)
        load_adapter(fresh, source)
        expected[name] = (bare, answers_of(family, fresh, inputs))
    return expected


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--code", type=Path, required=True, help="a checkout of its code")
    parser.add_argument("--python", default=sys.executable, help="Python that can run it")
    options = parser.parse_args()
    code = options.code.absolute()
    paths = [str(code), str(code / "flux"), os.environ.get("PYTHONPATH", "")]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        expected = prepare(work)
        done = subprocess.run(
            [options.python, PROBE, work],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        found = {name: load_file(work / f"{name}.answers")["answers"] for name in expected}
    print("| | the adapter changes the answer by | largest difference |\n|---|---|---|")
    worst = 0.0
    for name, (bare, ours) in expected.items():
        size = float(ours.abs().max())
        change = float((ours - bare).abs().max()) / size
        off = float((ours - found[name]).abs().max()) / size
        worst = max(worst, off)
        print(f"| {name.replace('-', ' ')} | {change:.2f} | {off:.1e} |")
    if worst > TOLERANCE:
        sys.exit(1)


if __name__ == "__main__":
    main()
