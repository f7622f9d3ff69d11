"""What is said of a base that is not whole, before a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_hub import fake_hub, reach
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import load_file, save_file
from single_file import write_flux, write_sdxl
from validations import recipe, told

from tlora_cli.families import FAMILIES
from tlora_cli.tools.preflight.base_files import look_at_base, needed_parts
from tlora_cli.tools.preflight.findings import Finding


def cut_off(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def without(tensor: str, file: Path) -> None:
    tensors = load_file(file)
    del tensors[tensor]
    save_file(tensors, file)


def wider(tensor: str, file: Path) -> None:
    tensors = load_file(file)
    tensors[tensor] = torch.cat([tensors[tensor]] * 2)
    save_file(tensors, file)


def rewritten(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


UNET = "unet/diffusion_pytorch_model.safetensors"
DAMAGE: list[tuple[str, Callable[[Path], object]]] = [
    ("model_index.json is missing", lambda f: (f / "model_index.json").unlink()),
    ("model_index.json of the base can't be read", lambda f: cut_off(f / "model_index.json")),
    ("is a FluxPipeline, not a sdxl", lambda f: rewritten(f / "model_index.json",
                                                          _class_name="FluxPipeline")),
    (f"{UNET} is damaged", lambda f: cut_off(f / UNET)),
    ("unet has no weights", lambda f: (f / UNET).unlink()),
    ("unet lacks 1 of", lambda f: without("conv_in.weight", f / UNET)),
    ("conv_in.bias is [", lambda f: wider("conv_in.bias", f / UNET)),
    ("unet/config.json is missing", lambda f: (f / "unet/config.json").unlink()),
    ("unet/config.json is damaged", lambda f: cut_off(f / "unet/config.json")),
    ("unet/config.json makes no model", lambda f: rewritten(f / "unet/config.json",
                                                            block_out_channels="wide")),
    ("vae/config.json makes no model", lambda f: rewritten(f / "vae/config.json",
                                                           latent_channels=-1)),
    ("scheduler_config.json can't be used", lambda f: rewritten(
        f / "scheduler/scheduler_config.json", num_train_timesteps="many")),
    ("tokenizer_config.json is damaged: it holds no settings",
     lambda f: (f / "tokenizer/tokenizer_config.json").write_text("[]")),
    ("the folder vae is missing", lambda f: shutil.rmtree(f / "vae")),
    ("text_encoder_2 has no weights",
     lambda f: (f / "text_encoder_2/model.safetensors").unlink()),
    ("tokenizer holds no vocabulary",
     lambda f: [file.unlink() for file in (f / "tokenizer").glob("*[!g].json")]),
    ("predicts 'sample'", lambda f: rewritten(f / "scheduler/scheduler_config.json",
                                              prediction_type="sample")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "damage"), DAMAGE, ids=[text for text, _ in DAMAGE])
def test_a_folder_that_is_not_whole(
    text: str, damage: Callable[[Path], object], tiny_sdxl: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny-sdxl"
    shutil.copytree(tiny_sdxl, folder)
    [fine] = look_at_base(recipe(folder, tmp_path))
    size = sum(file.stat().st_size for file in folder.rglob("*/*") if file.is_file())
    assert fine.level == "ok" and fine.text.endswith("all whole")
    assert f"{size / 1e6:.0f} MB" in fine.text
    damage(folder)
    found = list(look_at_base(recipe(folder, tmp_path)))
    assert found and all(one.level == "problem" and one.do for one in found)
    assert text in told(found, "problem")


def test_a_flux_folder(tiny_flux: Path, tmp_path: Path) -> None:
    [fine] = look_at_base(recipe(tiny_flux, tmp_path))
    assert fine.level == "ok"


def test_a_single_file(tiny_sdxl: Path, tiny_flux: Path, tmp_path: Path) -> None:
    def look(tiny: Path, file: Path) -> list[Finding]:
        base = {"model": str(file), "config": str(folder)}
        return list(look_at_base(recipe(tiny, tmp_path, base=base)))

    folder = tmp_path / "config"
    shutil.copytree(tiny_sdxl, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    whole, part, flux = (tmp_path / f"{name}.safetensors" for name in ("whole", "unet", "flux"))
    write_sdxl(tiny_sdxl, whole)
    write_sdxl(tiny_sdxl, part, ("unet",))
    write_flux(tiny_flux, flux)
    assert [one.level for one in look(tiny_sdxl, whole)] == ["ok"]
    assert "no tensor is called first_stage_model" in told(look(tiny_sdxl, part), "problem")
    assert "no whole sdxl file" in told(look(tiny_sdxl, flux), "problem")
    cut_off(whole)
    assert "is damaged" in told(look(tiny_sdxl, whole), "problem")
    shutil.rmtree(folder / "tokenizer_2")
    assert "the folder tokenizer_2 is missing" in told(look(tiny_sdxl, whole), "problem")
    assert "there is no file" in told(look(tiny_sdxl, tmp_path / "n.safetensors"), "problem")
    # A FLUX file is the transformer alone; the rest comes from the folder, with its weights.
    shutil.rmtree(folder)
    shutil.copytree(tiny_flux, folder)
    for weights in (folder / "transformer").glob("*.safetensors"):
        weights.unlink()
    assert [one.level for one in look(tiny_flux, flux)] == ["ok"]
    config = (folder / "transformer" / "config.json").rename(tmp_path / "config.json")
    assert "transformer/config.json is missing" in told(look(tiny_flux, flux), "problem")
    config.rename(folder / "transformer" / "config.json")
    (folder / "text_encoder_2" / "model.safetensors").unlink()
    assert "text_encoder_2 has no weights" in told(look(tiny_flux, flux), "problem")


SHARDS = [f"unet/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)]
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"


@pytest.mark.parametrize(
    ("variant", "unet", "encoder"),
    [
        (None, SHARDS, "text_encoder/model.safetensors"),
        ("fp16", [HALF], "text_encoder/model.fp16.safetensors"),
        ("bf16", SHARDS, "text_encoder/model.safetensors"),
    ],
)
def test_of_a_repository_only_what_is_read_counts(
    variant: str | None, unet: list[str], encoder: str
) -> None:
    names = [
        "README.md",
        *("sd_xl_base_1.0.safetensors", "unet/config.json", "unet/openvino_model.bin"),
        *("unet/model.onnx", HALF, *SHARDS),
        "unet/diffusion_pytorch_model.safetensors.index.json",
        *("text_encoder/config.json", "text_encoder/model.safetensors"),
        *("text_encoder/model.fp16.safetensors", "text_encoder/pytorch_model.bin"),
        *("text_encoder/flax_model.msgpack", "text_encoder_2/config.json"),
        *("tokenizer/vocab.json", "tokenizer/merges.txt", "tokenizer_2/tokenizer.json"),
        *("vae/config.json", "vae/diffusion_pytorch_model.bin"),
        "scheduler/scheduler_config.json",
    ]
    parts = {part.name: part for part in needed_parts(FAMILIES["sdxl"], names, variant)}
    weights = {
        name: [file for file in part.files if file.endswith((".safetensors", ".bin"))]
        for name, part in parts.items()
    }
    assert weights["unet"] == unet
    assert weights["text_encoder"] == [encoder]
    assert weights["vae"] == ["vae/diffusion_pytorch_model.bin"]
    assert {name: part.lacking for name, part in parts.items() if part.lacking} == {
        "text_encoder_2": "text_encoder_2 has no weights"
    }
    short = [name for name in names if "00002-of" not in name and "fp16" not in name]
    [lacking] = [p.lacking for p in needed_parts(FAMILIES["sdxl"], short, None) if p.name == "unet"]
    assert lacking == "unet has only 1 of 2 files of weights"


def test_repositories(tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(model: str, **base: Any) -> list[Finding]:
        given = recipe(tiny_sdxl, tmp_path, base={"model": model, **base})
        return list(look_at_base(given))

    cache = tmp_path / "cache"
    repositories = {"me/whole": tiny_sdxl, "me/gated": tiny_sdxl}
    with fake_hub(repositories, gated={"me/gated"}) as (address, asked):
        reach(monkeypatch, address, cache)
        [found] = look("me/whole")
        assert found.level == "ok" and "without a token; 4 MB will be downloaded" in found.text
        assert not [path for path in asked if "safetensors" in path]
        assert "is gated" in told(look("me/gated"), "problem")
        assert "hf auth login" in look("me/gated")[0].do
        assert "base not found" in told(look("me/none"), "problem")
        assert "has no revision v2" in told(look("me/whole", revision="v2"), "problem")
        monkeypatch.setattr("tlora_cli.tools.preflight.base_files.free_space", lambda folder: 10**6)
        assert "4 MB are to be downloaded" in told(look("me/whole"), "problem")
        # The index is in the cache by now, the rest is not.
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        [found] = look("me/whole")
        assert "not all on this machine, and HF_HUB_OFFLINE is set" in found.text
        assert "hf download me/whole --include" in found.do
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        for file in tiny_sdxl.rglob("*.*"):
            hf_hub_download("me/whole", file.relative_to(tiny_sdxl).as_posix(), cache_dir=cache)
        [found] = look("me/whole")
        assert found.level == "ok" and found.text.endswith("all whole")
    [found] = look("me/whole")  # the Hub is gone, the cache is not
    assert found.level == "ok" and found.text.endswith("all whole")
