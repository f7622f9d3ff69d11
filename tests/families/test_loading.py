"""Where a base model can come from: a Hub cache, a folder, one file; and what is said when not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from huggingface_hub import errors as hub_errors
from single_file import tiny_flux_converter, write_flux, write_sdxl
from torch import nn
from training_runs import ROOT, moved, run, tlora, write_recipe

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families import loading as bases
from tlora_cli.families.loading import Base, load_pipeline

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FLUX_WIDTH = 32


def same(a: nn.Module, b: nn.Module) -> bool:
    first, second = a.state_dict(), b.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize(("name", "fixture"), [("sdxl", "tiny_sdxl"), ("flux", "tiny_flux")])
def test_parts_of_a_folder(name: str, fixture: str, request: pytest.FixtureRequest) -> None:
    family, base = FAMILIES[name], Base(str(request.getfixturevalue(fixture)))
    whole = load_pipeline(family, base, dtype=torch.bfloat16)
    assert whole.vae.dtype == torch.float32
    assert getattr(whole, family.denoiser).dtype == whole.text_encoder.dtype == torch.bfloat16
    text = load_pipeline(family, base, parts=("text",))
    assert text.vae is None
    assert getattr(text, family.denoiser) is None
    rest = load_pipeline(family, base, parts=("vae", "denoiser"))
    assert rest.text_encoder is None
    assert rest.tokenizer_2 is None
    assert rest.scheduler.config == whole.scheduler.config


def without_weights(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))
    return target


def test_sdxl_single_file(tiny_sdxl: Path, tmp_path: Path) -> None:
    """A file with every part, and a folder with configuration and tokenizers only."""
    file, family = tmp_path / "model.safetensors", FAMILIES["sdxl"]
    write_sdxl(tiny_sdxl, file)
    config = without_weights(tiny_sdxl, tmp_path / "config")
    expected = load_pipeline(family, Base(str(tiny_sdxl)))
    got = load_pipeline(family, Base(str(file), config=str(config)))
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        assert same(getattr(got, part), getattr(expected, part)), part
    half = load_pipeline(family, Base(str(file), config=str(config)), dtype=torch.bfloat16)
    assert (half.unet.dtype, half.vae.dtype) == (torch.bfloat16, torch.float32)
    text = load_pipeline(family, Base(str(file), config=str(config)), parts=("text",))
    assert text.unet is None
    assert same(text.text_encoder_2, expected.text_encoder_2)
    outcome = run(tiny_sdxl, tmp_path / "t", base={"model": str(file), "config": str(config)})
    assert outcome.adapter is not None
    assert moved(outcome.adapter)
    command = (
        "sample",
        "--adapter",
        outcome.adapter,
        "--prompt",
        "a V*",
        "--output",
        tmp_path / "o",
    )
    sampled = tlora(*command)
    assert sampled.returncode == 0, sampled.stderr


def test_flux_single_file(tiny_flux: Path, tmp_path: Path) -> None:
    """A file with the transformer in the original names; the folder has the rest."""
    file, family = tmp_path / "flux.safetensors", FAMILIES["flux"]
    write_flux(tiny_flux, file)
    base = Base(str(file), config=str(tiny_flux))
    with tiny_flux_converter(FLUX_WIDTH):
        got = load_pipeline(family, base)
        rest = load_pipeline(family, base, parts=("text",))
        outcome = run(
            tiny_flux, tmp_path / "t", base={"model": str(file), "config": str(tiny_flux)}
        )
    expected = load_pipeline(family, Base(str(tiny_flux)))
    for part in ("transformer", "vae", "text_encoder", "text_encoder_2"):
        assert same(getattr(got, part), getattr(expected, part)), part
    assert rest.transformer is None
    assert outcome.adapter is not None
    assert moved(outcome.adapter)


@pytest.mark.parametrize(
    "revision",
    [None, *(pytest.param(name, marks=pytest.mark.full) for name in ("v1", COMMIT))],
)
def test_hub_id_from_the_cache_offline(
    tiny_sdxl: Path, tmp_path: Path, revision: str | None
) -> None:
    """The layout that a download leaves, read by a process of its own: settings are read once."""
    repository = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(tiny_sdxl, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    for name in ("main", "v1"):
        (repository / "refs" / name).write_text(COMMIT)
    base = {"model": "someone/tiny", "revision": revision}
    recipe = write_recipe(tiny_sdxl, tmp_path / "t", base=base, train__steps=2)
    adapter = tmp_path / "t" / "run" / "adapter.safetensors"
    commands = (
        ["train", "--config", str(recipe)],
        ["sample", "--adapter", str(adapter), "--prompt", "a V*", "--output", str(tmp_path / "o")],
    )
    code = (
        "import sys\nfrom tlora_cli.cli.app import main\n"
        f"for words in {commands}:\n    sys.argv = ['tlora', *words]\n    assert main() == 0\n"
    )
    offline = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **offline}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "o").glob("*.png"))


def refused(name: str, base: Base) -> str:
    with pytest.raises(UserError) as caught:
        load_pipeline(FAMILIES[name], base)
    return str(caught.value)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (hub_errors.GatedRepoError, ["is gated", "hf auth login", "huggingface.co/a/model"]),
        (hub_errors.RepositoryNotFoundError, ["base not found", "check the spelling"]),
        (hub_errors.RevisionNotFoundError, ["has no revision v9", "check base.revision"]),
        (hub_errors.LocalEntryNotFoundError, ["can't be reached", "hf download a/model"]),
    ],
)
def test_hub_errors(error: Any, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    response = Mock(headers={}, request=None)

    def fails(*arguments: Any, **options: Any) -> None:
        if error is hub_errors.LocalEntryNotFoundError:
            raise error("no")
        raise error("no", response=response)

    monkeypatch.setattr(bases, "hf_hub_download", fails)
    message = refused("flux", Base("a/model", revision="v9"))
    for word in words:
        assert word in message
    assert "fix:" in message


def test_single_files_that_can_not_be_loaded(tiny_sdxl: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing.safetensors"
    assert "there is no file" in refused("sdxl", Base(str(missing), config=str(tiny_sdxl)))
    file = tmp_path / "model.safetensors"
    write_sdxl(tiny_sdxl, file)
    assert "needs its configuration" in refused("sdxl", Base(str(file)))
    assert "model_index.json is missing" in refused("sdxl", Base(str(file), config=str(tmp_path)))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(file.read_bytes()[:20_000])
    message = refused("sdxl", Base(str(cut), config=str(tiny_sdxl)))
    assert "can't be loaded" in message
    no_unet = tmp_path / "no_unet.safetensors"
    write_sdxl(tiny_sdxl, no_unet, parts=("vae",))
    assert "is no whole sdxl file" in refused("sdxl", Base(str(no_unet), config=str(tiny_sdxl)))
