"""Adapter files of every kind, mutated, and what is done with each."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from make_tiny_models import write_tiny_flux, write_tiny_sdxl
from safetensors.torch import load_file, save
from torch import Tensor, nn

from breaking.answers import run_command
from breaking.guard import Case, Make
from breaking.mutations import Files, mutate
from breaking.pickles import saved
from tlora_cli import attach, load_adapter
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import AdapterInfo, read_adapter, read_origin
from tlora_cli.tools.convert import convert_file


def prepare(folder: Path, seed: int) -> Make:
    """Return what makes the cases; files go to `folder`."""
    bases, models = {}, {}
    for family, write, kind, part in (
        ("sdxl", write_tiny_sdxl, UNet2DConditionModel, "unet"),
        ("flux", write_tiny_flux, FluxTransformer2DModel, "transformer"),
    ):
        bases[family] = folder / f"tiny-{family}"
        if not bases[family].exists():
            write(bases[family])
        models[family] = kind.from_pretrained(bases[family], subfolder=part)
    samples = _samples(models, folder, bases)
    meta = {family: _linears(meta_denoiser(family, str(bases[family]))) for family in bases}
    inside = folder / "case"

    def make(number: int) -> tuple[str, Case]:
        chance = random.Random(f"{seed} adapter {number}")
        name = chance.choice(list(samples))
        files = dict(samples[name])
        family = "flux" if "flux" in name else "sdxl"
        done = mutate(chance, files, name)
        shutil.rmtree(inside, ignore_errors=True)
        for file, data in files.items():
            (inside / file).parent.mkdir(parents=True, exist_ok=True)
            (inside / file).write_bytes(data)
        path = inside / next(iter(files))
        output = inside / "out.safetensors"
        cases: dict[str, Case] = {
            "origin": lambda: _origin(path),
            "read": lambda: _read(path, meta[family]),
            "load": lambda: _load(path, models[family], chance),
            "convert": lambda: _convert(path, inside, family, bases[family], chance),
            "command": lambda: _command(path, output, bases[family]),
        }
        called = chance.choice(("origin", "read", "load", "load", "convert", "convert", "command"))
        return f"{called}, {name}, {done}", cases[called]

    return make


def _linears(model: nn.Module) -> dict[str, nn.Module]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear)}


# --- what is done with a file ---------------------------------------------------------------------


def _origin(path: Path) -> None:
    read_origin(path)


def _read(path: Path, layers: dict[str, nn.Module]) -> None:
    weights = read_adapter(path, layers)
    for down, up in weights.layers.values():
        assert down.isfinite().all() and up.isfinite().all(), "the factors are not finite"


def _load(path: Path, model: nn.Module, chance: random.Random) -> None:
    """Put it on a model and take it off again."""
    min_rank = chance.choice((None, 1, 2))
    trainable = chance.random() < 0.3
    load_adapter(model, path, min_rank=min_rank, trainable=trainable).remove()


def _convert(path: Path, inside: Path, family: str, base: Path, chance: random.Random) -> None:
    to = chance.choice(("tlora", "kohya", "comfyui"))
    output = inside / ("out" if to == "comfyui" else "out.safetensors")
    min_rank = chance.choice((None, 1, 2))
    stated = chance.choice((None, family))
    convert_file(path, output, stated, str(base), min_rank, chance.choice((None, 2.0)), {}, to)
    written = [output] if output.is_file() else list(output.glob("*.safetensors"))
    assert written, "nothing was written"
    for file in written:
        assert all(tensor.isfinite().all() for tensor in load_file(file).values()), file


def _command(path: Path, output: Path, base: Path) -> None:
    status = run_command("convert", path, "--output", output, "--base", base)
    assert status or output.exists()


# --- files to begin with --------------------------------------------------------------------------


def _samples(
    models: dict[str, nn.Module], folder: Path, bases: dict[str, Path]
) -> dict[str, Files]:
    """Return whole files of every format."""
    found: dict[str, Files] = {}
    for family, model in models.items():
        for method, sizes in (
            ("lora", {"rank": 2}), ("tlora", {"rank": 3}), ("oft", {"blocks": 2}), ("svdiff", {}),
        ):  # fmt: skip
            file = folder / "sample.safetensors"
            info = AdapterInfo(placeholder="sks", class_name="dog", base_model="b", seed=1)
            adapter = attach(model, method, info=info, **sizes)
            _move(adapter)
            adapter.save(file)
            adapter.remove()
            found[f"{method} {family}"] = {"a.safetensors": file.read_bytes()}
            if method in ("lora", "tlora"):
                other = folder / "other.safetensors"
                other.unlink(missing_ok=True)
                convert_file(file, other, None, str(bases[family]), None, None, {}, "kohya")
                found[f"kohya {method} {family}"] = {"a.safetensors": other.read_bytes()}
            if method == "lora":
                found |= _foreign(load_file(file), family)
    return found


def _move(adapter: Any) -> None:
    """Make every tensor non-zero, as if it had been trained."""
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)


def _foreign(tensors: dict[str, Tensor], family: str) -> dict[str, Files]:
    """Return a plain LoRA in PEFT's and in the published names."""
    part = {"sdxl": "unet.", "flux": "transformer."}[family]
    bare = {key.removeprefix(part): tensor for key, tensor in tensors.items()}
    config = {"r": 2, "lora_alpha": 4, "rank_pattern": {r".*to_q": 2}, "alpha_pattern": {}}
    peft = {f"base_model.model.{key}": tensor for key, tensor in bare.items()}
    published = {}
    for key, tensor in bare.items():
        layer, _, side = key.removesuffix(".weight").rpartition(".")
        attention, _, projection = layer.removesuffix(".0").rpartition(".")
        name = {"add_q_proj": "to_q_proj", "add_k_proj": "to_k_proj", "add_v_proj": "to_v_proj"}
        projection = name.get(projection, projection)
        where = {"lora_A": "down", "lora_B": "up"}[side]
        if projection != "to_add_out":
            published[f"{attention}.processor.{projection}_lora.{where}.weight"] = tensor
    hparams = {
        "trainer_class": "sdxl_tlora", "tlora": True, "lora_rank": 2, "rank": 2, "min_rank": 1,
        "alpha_rank_scale": 1.0, "seed": 0, "placeholder_token": "sks", "class_name": "dog",
        "pretrained_model_name_or_path": "b", "sig_type": "last",
    }  # fmt: skip
    beside = {"logs/hparams.yml": yaml.safe_dump(hparams).encode()}
    return {
        f"peft {family}": {
            "adapter_model.safetensors": save(peft),
            "adapter_config.json": json.dumps(config).encode(),
        },
        f"published {family}": {"lora.pt": saved(published), **beside},
        f"published safetensors {family}": {
            "pytorch_lora_weights.safetensors": save(published), **beside,
        },
        f"old pickle {family}": {"lora.bin": saved(published, old=True), **beside},
    }  # fmt: skip
