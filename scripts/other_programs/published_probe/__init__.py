"""Runs with the published code's libraries: its own loading on our folders, and a few answers of
the loaded denoiser. Called by `published.py`; it imports nothing of tlora.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file


def sdxl(run: Path, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Set up the inferencer that `inference.py` chooses; its VAE comes from the base here."""
    from tlora import inferencer_sdxl as code

    with (run / "logs" / "hparams.yml").open(encoding="utf-8") as file:
        config = yaml.safe_load(file)
    load = code.AutoencoderKL.from_pretrained
    base = config["pretrained_model_name_or_path"]
    code.AutoencoderKL.from_pretrained = lambda name, **_: load(base, subfolder="vae")
    arguments = SimpleNamespace(
        checkpoint_idx="800", num_images_per_prompt=1, batch_size=1, num_inference_steps=2,
        guidance_scale=5.0, replace_inference_output=False, version=0, seed=0,
    )  # fmt: skip
    make = code.inferencers[config["trainer_class"]]
    inferencer = make(config, arguments, ["a {0}"], device="cpu")
    inferencer.setup()
    code.AutoencoderKL.from_pretrained = load
    pipe, answers = inferencer.pipe, []
    for t in inputs["t"]:
        mask = None
        if hasattr(pipe, "get_mask_by_timestep"):
            top = pipe.scheduler.config.num_train_timesteps
            mask = pipe.get_mask_by_timestep(t, top, pipe.max_rank, pipe.min_rank, pipe.alpha)
        words = {"text_embeds": inputs["pooled"], "time_ids": inputs["ids"]}
        answer = pipe.unet(
            inputs["sample"], t, inputs["text"], added_cond_kwargs=words,
            cross_attention_kwargs=None if mask is None else {"sigma_mask": mask},
        )  # fmt: skip
        answers.append(answer.sample)
    return answers


def flux(run: Path, inputs: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Run `main` of `run_inference.py` up to its drawing, on the CPU."""
    import diffusers
    import run_inference as code

    caught: list[Any] = []
    diffusers.DiffusionPipeline.to = lambda self, *_, **__: self
    code.AttnProcsLayers.to = lambda self, *_, **__: self
    code.generate_with_prompt_list = lambda pipe, *_, **__: caught.append(pipe)
    code.main(SimpleNamespace(exp=str(run), checkpoint_idx=800, prompts="a {0}", seed=0))
    pipe, answers = caught[0], []
    transformer = pipe.transformer.float()
    for t in inputs["t"]:
        told = {}
        if hasattr(pipe, "get_rank_by_timestep"):
            top = pipe.scheduler.config.num_train_timesteps
            rank = pipe.get_rank_by_timestep(t, top, pipe.max_rank, pipe.min_rank)
            mask = torch.zeros((1, pipe.max_rank))
            mask[:, :rank] = 1.0
            told = {"sigma_mask": mask}
        answer = transformer(
            hidden_states=inputs["sample"], encoder_hidden_states=inputs["text"],
            pooled_projections=inputs["pooled"], timestep=t[None] / 1000,
            img_ids=inputs["ids"], txt_ids=inputs["text_ids"], guidance=torch.ones(1),
            joint_attention_kwargs=told,
        )  # fmt: skip
        answers.append(answer.sample)
    return answers


@torch.no_grad()
def main(work: Path) -> None:
    for run in sorted(path for path in work.iterdir() if (path / "logs").is_dir()):
        family = run.name.partition("-")[0]
        inputs = load_file(work / f"{family}.safetensors")
        answers = {"sdxl": sdxl, "flux": flux}[family](run, inputs)
        save_file({"answers": torch.stack(answers)}, work / f"{run.name}.answers")


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    main(Path(sys.argv[1]))
