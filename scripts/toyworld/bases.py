"""The pipelines of both bases: from the checkpoints in the work folder, or else as shipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import train_flux
import train_sdxl
from denoising import load_averaged, load_vae
from release import size_of, trained

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.foundation.bundled import bases, model_folder

OF_TRAINING = (
    "UNet",
    "transformer",
    "text encoders",
    "training",
    "guidance distillation",
    "decoder",
)
"""Facts of a shipped base's training on its card."""


def short(base: str) -> str:
    """Return what a base is called in the names of files in the work folder."""
    return base.removeprefix("toy-")


def base_of(work: Path, base: str) -> tuple[Any, dict[str, Any]]:
    """Return the pipeline of a base, with the VAE of the work folder, and facts of its training."""
    make = {"toy-sdxl": sdxl, "toy-flux": flux}[base]
    there = (work / f"{short(base)}.pt").exists()
    pipeline, facts = make(work) if there else shipped(work, base)
    log = work / f"decoder-{base}.jsonl"
    return pipeline, facts | ({"decoder": trained(log)} if log.exists() else {})


def shipped(work: Path, base: str) -> tuple[Any, dict[str, Any]]:
    """Return the shipped pipeline with the VAE of the work folder, and the facts of its card."""
    pipeline = load_pipeline(FAMILIES[bases()[base]], Base(base))
    pipeline.register_modules(vae=load_vae(work, short(base)))
    known = json.loads((model_folder(base) / "scores.json").read_text(encoding="utf-8"))
    return pipeline, {name: known[name] for name in OF_TRAINING if name in known}


def sdxl(work: Path) -> tuple[Any, dict[str, Any]]:
    """Return toy-sdxl's pipeline and the facts of its training."""
    model = load_averaged(train_sdxl.model_of(train_sdxl.design_of(work, "sdxl")), work / "sdxl.pt")
    model.unet.to(memory_format=torch.contiguous_format)
    pipeline = train_sdxl.pipeline_of(model, load_vae(work, "sdxl"))
    facts = {
        "UNet": size_of(model.unet),
        "text encoders": size_of(*model.encoders),
        "training": trained(work / "sdxl.jsonl"),
    }
    return pipeline, facts


def flux(work: Path) -> tuple[Any, dict[str, Any]]:
    """Return toy-flux's pipeline and the facts of its training."""
    model = load_averaged(train_flux.ToyFlux(), work / "flux.pt")
    pipeline = train_flux.pipeline_of(model, load_vae(work, "flux"))
    facts = {
        "transformer": size_of(model.transformer),
        "text encoders": size_of(*model.encoders),
        "training": trained(work / "flux-teacher.jsonl"),
        "guidance distillation": trained(work / "flux.jsonl"),
    }
    return pipeline, facts
