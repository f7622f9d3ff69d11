"""A run's folder as the published code leaves it: what its inference reads is there.

The checkpoints in tests/reference were saved by the published modules, so their names and shapes
are what those load. scripts/other_programs/published.py runs the code itself.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from adapter_files import (
    LEAST,
    RANK,
    active,
    close,
    convert,
    denoiser,
    masked_update,
    random_adapter,
    write_bases,
)
from reference_runs import REFERENCE, Run, base_folder
from safetensors.torch import load_file
from torch import Tensor

from tlora_cli import RankSchedule, UserError
from tlora_cli.families import FAMILIES
from tlora_cli.formats import AdapterInfo, AdapterWeights, read_adapter, tlora_file
from tlora_cli.formats.published import PUBLISHED
from tlora_cli.injection.load import matrix_layers, rows_of

READ = {
    "sdxl": {"trainer_class", "trainer_type", "output_dir", "pretrained_model_name_or_path",
             "revision", "lora_rank", "min_rank", "alpha_rank_scale", "sig_type",
             "placeholder_token", "class_name"},
    "flux": {"tlora", "rank", "min_rank", "output_dir", "pretrained_model_name_or_path",
             "placeholder_token", "class_name"},
}  # fmt: skip
"""Keys of hparams.yml that tlora/inferencer_sdxl.py and flux/run_inference.py read."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_bases(tmp_path_factory.mktemp("bases"))


def checkpoint(folder: Path, step: int) -> dict[str, Tensor]:
    """Return the tensors as the published code finds and loads them: strictly, by hparams.yml."""
    settings = settings_of(folder)
    place = Path(settings["output_dir"]) / f"checkpoint-{step}"
    if "trainer_class" in settings:
        return load_file(place / "pytorch_lora_weights.safetensors")
    loaded: dict[str, Tensor] = torch.load(place / "lora.pt", weights_only=True)
    return loaded


def settings_of(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load((folder / "logs" / "hparams.yml").read_text())
    return settings


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_hparams_say_all_that_inference_reads(
    family: str, bases: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "ours.safetensors"
    schedule = RankSchedule(RANK, LEAST)
    random_adapter(source, family, "vanilla_tlora", schedule)
    monkeypatch.chdir(tmp_path)
    relative = os.path.relpath(bases[family], tmp_path)
    said = convert(source, "--to", "published", "--base", relative, "--output", "new")
    assert "names this folder as output_dir" in said
    monkeypatch.chdir("/")  # the published code runs elsewhere
    settings = settings_of(tmp_path / "new")
    assert settings.keys() >= READ[family]
    assert settings["output_dir"] == str(tmp_path / "new")
    assert settings["pretrained_model_name_or_path"] == str(bases[family].resolve())
    assert (settings["placeholder_token"], settings["class_name"]) == ("sks", "dog")
    assert settings["min_rank"] == LEAST
    if family == "sdxl":
        assert settings["trainer_class"] == "sdxl_tlora"
        assert settings["trainer_type"] == "lora"
        assert (settings["lora_rank"], settings["alpha_rank_scale"]) == (RANK, 1.0)
    else:
        assert (settings["tlora"], settings["rank"]) == (True, RANK)
    assert checkpoint(tmp_path / "new", 800)


@pytest.mark.parametrize("name", ["sdxl_ortho_lora_last", "sdxl_lora_none", "flux_lora"])
def test_the_checkpoint_has_the_tensors_of_the_published_modules(name: str, tmp_path: Path) -> None:
    """Read from a published run and written again: the same names, shapes and update."""
    run = Run(name)
    run.adapter.remove()
    base, ours = base_folder(tmp_path, run), tmp_path / "ours.safetensors"
    least = str(run.case["min_rank"])
    convert(REFERENCE / name, "--base", base, "--output", ours, "--min-rank", least)
    convert(ours, "--to", "published", "--base", base, "--output", tmp_path / "new")
    found = checkpoint(tmp_path / "new", 0)
    file = REFERENCE / name / ("lora.pt" if "flux" in name else "pytorch_lora_weights.safetensors")
    theirs = torch.load(file, weights_only=True) if "flux" in name else load_file(file)
    assert {key: x.shape for key, x in found.items()} == {key: x.shape for key, x in theirs.items()}
    assert {x.dtype for x in found.values()} == {torch.float32}
    for key, tensor in theirs.items():
        used = not key.startswith("single_") or key.split("_lora")[0][-4:] in (
            "to_q",
            "to_k",
            "to_v",
        )
        if "ortho" not in name and used:
            assert torch.equal(found[key], tensor), key
        elif not used:
            assert not found[key].any(), key
    again = read_adapter(tmp_path / "new" / "checkpoint-0", [])
    before = read_adapter(ours, [])
    assert again.schedule == before.schedule == RankSchedule(8, int(least))
    assert again.info.train_steps is None
    for layer in before.layers:
        for t in (0.0, 500.0, 999.0):
            assert close(masked_update(again, layer, t), masked_update(before, layer, t)), layer


@pytest.mark.parametrize("method", ["lora", "ortho_lora", "pissa", "vanilla_tlora"])
def test_flux_holds_what_its_plain_factors_can(
    method: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    """A start that is subtracted is other ranks of a plain LoRA, if there is no mask."""
    source = tmp_path / "ours.safetensors"
    weights = random_adapter(source, "flux", method)
    convert(source, "--to", "published", "--base", bases["flux"], "--output", tmp_path / "new")
    settings, tensors = settings_of(tmp_path / "new"), checkpoint(tmp_path / "new", 800)
    assert weights.schedule is not None
    assert settings["tlora"] is (method == "vanilla_tlora")
    assert settings["rank"] == RANK * weights.copies
    for layer in weights.layers:
        attention, _, projection = layer.removesuffix(".0").rpartition(".")
        projection = {"add_q_proj": "to_q_proj", "add_k_proj": "to_k_proj",
                      "add_v_proj": "to_v_proj"}.get(projection, projection)  # fmt: skip
        stem = f"{attention}.processor.{projection}_lora"
        down, up = (tensors[f"{stem}.{x}.weight"].double() for x in ("down", "up"))
        assert len(down) == settings["rank"]
        for t in (0.0, 450.0, 999.0):
            ranks = active(weights.schedule, t) if settings["tlora"] else settings["rank"]
            found = up[:, :ranks] @ down[:ranks]
            assert close(found, masked_update(weights, layer, t)), (layer, t)
    back = read_adapter(tmp_path / "new" / "checkpoint-800", [])
    assert back.layers.keys() == weights.layers.keys()
    assert back.info.train_steps == 800


def test_what_the_published_layout_cannot_hold(bases: dict[str, Path], tmp_path: Path) -> None:
    new, source = tmp_path / "new", tmp_path / "a.safetensors"
    step = RankSchedule(RANK, 2, kind="step", points=[(0.0, RANK), (500.0, 2)])
    weights = random_adapter(source, "sdxl")
    few = dict(list(weights.layers.items())[:-1])
    cases: tuple[tuple[str, str, RankSchedule, dict[str, Any] | None, str], ...] = (
        ("flux", "tlora", RankSchedule(RANK, 2), None,
         "the published FLUX code masks plain factors alone"),
        ("flux", "vanilla_tlora", RankSchedule(RANK, 2, 0.5), None,
         "no exponent of the rank schedule, and alpha is 0.5"),
        ("sdxl", "tlora", step, None, "knows the linear rank schedule over 1000 timesteps"),
        ("sdxl", "tlora", RankSchedule(RANK, 2), few, f"it lacks {list(weights.layers)[-1]}"),
        ("sdxl", "lora", RankSchedule(25, 25), None,
         "no more ranks than inputs and outputs; down_blocks.1.attentions.0.transformer_blocks.0."
         "attn2.to_k is 64x24, and the rank is 25"),
    )  # fmt: skip
    for family, method, schedule, layers, message in cases:
        made = random_adapter(source, family, method, schedule)
        if layers is not None:
            cut = AdapterWeights(layers, 2, schedule, family, made.info)
            tlora_file.write(source, cut, timestep_scale=FAMILIES[family].timestep_scale)
        with pytest.raises(UserError) as refused:
            convert(source, "--to", "published", "--base", bases[family], "--output", new)
        assert message in refused.value.what
        assert refused.value.do.startswith("use --to tlora")
        assert not new.exists()


def test_what_is_not_known_is_said(bases: dict[str, Path], tmp_path: Path) -> None:
    """No base, no words, and layers of several ranks, as of other tools' LoRAs."""
    layers = random_adapter(tmp_path / "a.safetensors", "sdxl", "lora").layers
    thin = {name: (down[:2], up[:, :2]) for name, (down, up) in layers.items() if "attn1" in name}
    schedule = RankSchedule(RANK, RANK, kind="constant")
    weights = AdapterWeights({**layers, **thin}, 1, schedule, "sdxl", AdapterInfo(method="lora"))
    new = tmp_path / "new"
    assert PUBLISHED.write is not None
    with torch.device("meta"):
        sizes = rows_of(matrix_layers(denoiser("sdxl")))
    notes = "\n".join(PUBLISHED.write(new, weights, sizes))
    standard = "stabilityai/stable-diffusion-xl-base-1.0"
    assert f"{standard} is written" in notes
    assert "{0} in a prompt stands for nothing" in notes
    settings, tensors = settings_of(new), checkpoint(new, 0)
    assert settings["pretrained_model_name_or_path"] == standard
    assert (settings["placeholder_token"], settings["class_name"]) == ("", "")
    assert settings["trainer_class"] == "sdxl_lora"
    for name, (down, up) in weights.layers.items():
        attention, _, projection = name.removesuffix(".0").rpartition(".")
        stem = f"{attention}.processor.{projection}_lora"
        low, high = (tensors[f"{stem}.{x}.weight"] for x in ("down", "up"))
        assert len(low) == RANK
        assert close((high @ low).double(), (up @ down).double()), name
    again = read_adapter(new / "checkpoint-0", [])
    assert again.info.placeholder is None and again.info.class_name is None
    single = tmp_path / "base.safetensors"
    single.touch()
    info = AdapterInfo(method="lora", base_model=str(single))
    one = AdapterWeights(layers, 1, schedule, "sdxl", info)
    notes = "\n".join(PUBLISHED.write(tmp_path / "single", one, sizes))
    assert "the base is one file, which the published code can't load" in notes
