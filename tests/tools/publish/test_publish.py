"""`tlora publish`: what is in the folder, and what must not be."""

from __future__ import annotations

import getpass
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from huggingface_hub import ModelCard
from PIL import Image
from publishing import ADAPTER, FLUX, SDXL, SECRET
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_denoisers import BLOCKS, make_unet
from training_runs import same_tensors

from tlora_cli import attach
from tlora_cli.cli.app import main
from tlora_cli.formats import AdapterInfo, read_adapter
from tlora_cli.foundation.files import locked
from tlora_cli.foundation.pictures import picture_settings
from tlora_cli.injection.load import matrix_layers
from tlora_cli.sampling.draw import Job, SamplingSettings, write_picture

Cli = Callable[..., tuple[int, str, str]]


def code(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", card, re.MULTILINE | re.DOTALL)


# --- the folder -----------------------------------------------------------------------------------


def test_a_run_becomes_a_folder(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, said, err = cli(trained, "--output", out, "--base", SDXL)
    assert status == 0, err
    assert "nothing was uploaded" in said
    files = {str(file.relative_to(out)) for file in out.rglob("*") if file.is_file()}
    assert files == {"README.md", ADAPTER, "images/000.png", "images/001.png"}

    card = ModelCard.load(out / "README.md")
    data = card.data.to_dict()
    assert (data["base_model"], data["license"]) == (SDXL, "openrail++")
    assert (data["library_name"], data["pipeline_tag"]) == ("diffusers", "text-to-image")
    assert data["instance_prompt"] == "a photo of sks dog"
    wanted = {"text-to-image", "diffusers", "lora", "template:sd-lora", "stable-diffusion-xl"}
    assert wanted <= set(data["tags"])
    prompts = ["a sks dog in the snow", "a sks dog | `made` of <b>glass</b>"]
    assert [one["text"] for one in data["widget"]] == prompts

    previews = sorted((trained / "previews" / "step-000002").iterdir())
    for preview, one in zip(previews, data["widget"], strict=True):
        shown = out / one["output"]["url"]
        assert np.array_equal(np.asarray(Image.open(preview)), np.asarray(Image.open(shown)))
        before, after = picture_settings(preview), picture_settings(shown)
        assert before.items() >= after.items()
        assert before.keys() - after.keys() <= {
            "base",
            "base_revision",
            "quantization",
            "batch_size",
        }
    [row] = [line for line in card.text.splitlines() if "000.png" in line]
    assert row.endswith("| a sks dog in the snow<br>seed 5 |")
    [row] = [line for line in card.text.splitlines() if "001.png" in line]
    assert row.count("|") == 3 and "<b>" not in row and "`" not in row

    assert same_tensors(out / ADAPTER, trained / "adapter.safetensors")
    schedule = read_adapter(trained / "adapter.safetensors", ()).schedule
    assert schedule
    ranks = [str(schedule.active_rank(t)) for t in (0, 250, 500, 750, 999)]
    assert f"| active rank | {' | '.join(ranks)} |" in card.text
    assert "learned **sks dog** from one picture" in card.text
    assert "| steps | 2 |" in card.text and "| learning rate | 0.001 |" in card.text


def test_nothing_private_is_published(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = trained / "adapter.safetensors"
    with safe_open(source, "pt") as file:
        assert SECRET in file.metadata()["tlora.recipe"], "the source does say it"
    assert cli(trained, "--output", out, "--base", SDXL)[0] == 0
    private = [str(trained.parents[1]), str(Path.home()) + "/", SECRET, "tiny-sdxl"]
    if len(getpass.getuser()) > 4:
        private.append(getpass.getuser())
    for file in out.rglob("*"):
        if file.is_file():
            held = file.read_bytes()
            assert not [text for text in private if text.encode() in held], file.name
    with safe_open(out / ADAPTER, "pt") as file:
        header = file.metadata()
    recipe = json.loads(header["tlora.recipe"])
    assert recipe["base"] == {"model": SDXL}
    assert recipe["concept"] == {
        "placeholder": "sks", "class": "dog", "prompt": "a photo of {placeholder} {class}",
        "prompts": None, "captions": False, "caption_dropout": 0.0, "phrases": None,
    }  # fmt: skip
    assert recipe["train"]["steps"] == 2 and "output" not in recipe
    with safe_open(source, "pt") as file:
        before = file.metadata()
    changed = {key for key in before.keys() | header.keys() if before.get(key) != header.get(key)}
    assert changed == {"tlora.recipe", "tlora.base_model"}


def test_training_pictures_only_when_asked_for(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli(trained, "--output", out, "--base", SDXL, "--training-pictures")[0] == 0
    kept = Image.open(trained / "training_pictures" / "000.png")
    shown = Image.open(out / "images" / "training-000.png")
    assert np.array_equal(np.asarray(kept), np.asarray(shown))
    assert "![training picture](images/training-000.png)" in (out / "README.md").read_text()


def test_the_code_of_a_card_runs(
    cli: Cli, trained: Path, tmp_path: Path, tiny_sdxl: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert cli(trained, "--output", out, "--base", SDXL, "--also", "kohya")[0] == 0
    card = (out / "README.md").read_text()
    monkeypatch.chdir(out)
    blocks = code(card, "python")
    assert ["load_adapter" in block for block in blocks] == [True, False]
    assert "load_lora_weights" in blocks[1]
    for block in blocks:
        block = block.replace(SDXL, str(tiny_sdxl)).replace("bfloat16", "float32")
        block = block.replace('snow")', 'snow", num_inference_steps=2)')
        exec(compile(block, "README.md", "exec"), {})
        (out / "picture.png").unlink()
    for block in code(card, "bash"):
        [line] = block.splitlines()
        if "sample" in line:
            words = re.findall(r'"[^"]*"|\S+', line.replace(SDXL, str(tiny_sdxl)))[1:]
            more = ["--base", str(tiny_sdxl), "--output", str(tmp_path / "drawn")]
            monkeypatch.setattr("sys.argv", ["tlora", *[w.strip('"') for w in words], *more])
            assert main() == 0
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 1
    own = read_adapter(out / ADAPTER, ()).layers
    unet = UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet")
    plain = read_adapter(out / "out-kohya.safetensors", matrix_layers(unet)).layers
    assert own.keys() == plain.keys()
    for name, (down, up) in own.items():
        assert torch.allclose(plain[name][1] @ plain[name][0], up @ down, atol=1e-6)


def test_files_for_other_tools(cli: Cli, flux: Path, tmp_path: Path, tiny_flux: Path) -> None:
    from diffusers import FluxTransformer2DModel

    model = FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer")
    info = AdapterInfo(base_model=str(tiny_flux), placeholder="sks", class_name="dog")
    attach(model, "tlora", 4, min_rank=2, info=info).save(tmp_path / "tiny.safetensors")
    options = ("--base", FLUX, "--also", "comfyui", "--also", "kohya")
    status, _, err = cli(tmp_path / "tiny.safetensors", "--output", tmp_path / "dog", *options)
    assert status == 0, err
    files = {file.name for file in (tmp_path / "dog" / "comfyui" / "dog").iterdir()}
    assert {"workflow.json", "dog-plain.safetensors", "dog-ranks-001-002.safetensors"} <= files
    assert load_file(tmp_path / "dog" / "dog-kohya.safetensors")
    card = (tmp_path / "dog" / "README.md").read_text()
    assert "`comfyui/dog`" in card and "`dog-kohya.safetensors`" in card
    for file in (tmp_path / "dog").rglob("*.safetensors"):
        assert str(tmp_path).encode() not in file.read_bytes()


def test_flux_says_its_license(cli: Cli, flux: Path, tmp_path: Path) -> None:
    status, said, err = cli(flux, "--output", tmp_path / "out")
    assert status == 0, err
    assert "there are no pictures to show" in said
    data = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert (data["license"], data["base_model"]) == ("other", FLUX)
    assert data["license_name"] == "flux-1-dev-non-commercial-license"
    assert data["license_link"] == f"https://huggingface.co/{FLUX}/blob/main/LICENSE.md"
    assert {"flux", "lora", "template:sd-lora"} <= set(data["tags"])
    assert "widget" not in data and data["instance_prompt"] == "sks dog"


def test_a_method_that_only_tlora_can_load(cli: Cli, tmp_path: Path) -> None:
    info = AdapterInfo(base_model=SDXL, placeholder="sks", class_name="dog")
    attach(make_unet(), "oft_v2", blocks=BLOCKS, info=info).save(tmp_path / "oft.safetensors")
    assert cli(tmp_path / "oft.safetensors", "--output", tmp_path / "out")[0] == 0
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert "lora" not in card.data.tags and card.data.library_name is None
    assert "only tlora can use the file" in card.text and "load_lora_weights" not in card.text
    before, after = (load_file(tmp_path / f) for f in ("oft.safetensors", f"out/{ADAPTER}"))
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    status, _, err = cli(
        tmp_path / "oft.safetensors", "--output", tmp_path / "b", "--also", "kohya"
    )
    assert status == 2 and "changes the weights themselves" in err


# --- pictures -------------------------------------------------------------------------------------


def test_pictures_of_a_folder(cli: Cli, flux: Path, tmp_path: Path) -> None:
    folder = tmp_path / "samples"
    folder.mkdir()
    settings = SamplingSettings(30, 3.5, "euler", "", 64, 32)
    picture = Image.new("RGB", (64, 32), "teal")
    about = {"base": "/home/anna/flux", "adapter_file": "anna.safetensors", "scale": 0.5}
    write_picture(folder / "0000_x.png", Job("a sks dog at sea", 7), picture, settings, about)
    picture.save(folder / "0001_contact_sheet.png")
    status, said, err = cli(flux, "--output", tmp_path / "out", "--pictures", folder)
    assert status == 0, err
    assert "1 PNG files don't say how they were drawn" in said
    [shown] = (tmp_path / "out" / "images").iterdir()
    assert b"anna" not in shown.read_bytes()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "a sks dog at sea<br>seed 7, strength 0.5" in card
    assert "30 steps, guidance 3.5, scheduler euler, 64 x 32 pixels." in card


def test_pictures_drawn_now(cli: Cli, trained: Path, tmp_path: Path) -> None:
    drawn = ("--prompt", "a V* at night", "--count", 2, "--seed", 3, "--device", "cpu")
    status, _, err = cli(trained, "--output", tmp_path / "out", "--base", SDXL, *drawn)
    assert status == 0, err
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert [one["text"] for one in card.data.widget] == ["a sks dog at night"] * 2
    seeds = [picture_settings(f)["seed"] for f in sorted((tmp_path / "out/images").iterdir())]
    assert seeds == [3, 4]


# --- bad input ------------------------------------------------------------------------------------


def unfinished(trained: Path, folder: Path) -> Path:
    shutil.copytree(trained, folder)
    (folder / "adapter.safetensors").unlink()
    return folder


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("no-such-thing", (), "does not exist"),
        ("empty", (), "the folder holds no run"),
        ("unfinished", ("--base", SDXL), "checkpoint-000002/adapter.safetensors"),
        ("run", (), "a file of this computer"),
        ("run", ("--base", "my/own-model"), "the license of my/own-model is not known"),
        ("run", ("--base", "../model"), "is no Hub id"),
        ("run", ("--base", "my/own-model", "--license", "Free for all"), "is not how the Hub"),
        ("run", ("--base", SDXL, "--also", "khoya"), "did you mean kohya?"),
        ("run", ("--base", SDXL, "--public"), "add --upload OWNER/NAME"),
        ("run", ("--base", SDXL, "--upload", "nobody"), "write it as OWNER/NAME"),
        ("run", ("--base", SDXL, "--pictures", "empty"), "no PNG file that says its prompt"),
        ("run", ("--base", SDXL, "--pictures", "nowhere"), "no such folder"),
        ("run", ("--base", SDXL, "--prompt", "x", "--pictures", "empty"), "not both"),
        ("foreign.safetensors", ("--base", SDXL), "tlora convert foreign.safetensors"),
        ("cut.safetensors", ("--base", SDXL), "error:"),
        ("alone.safetensors", ("--base", SDXL, "--training-pictures"), "no training pictures"),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_nothing_is_written(
    source: str, options: tuple[str, ...], message: str,
    cli: Cli, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    adapter = trained / "adapter.safetensors"
    Path("empty").mkdir()
    Path("run").symlink_to(trained)
    if source == "unfinished":
        unfinished(trained, Path(source))
    shutil.copy(adapter, "alone.safetensors")
    save_file(load_file(adapter), "foreign.safetensors", metadata={"format": "pt"})
    Path("cut.safetensors").write_bytes(adapter.read_bytes()[:-100])
    status, out, err = cli(source, "--output", "out", *options)
    assert (status, out) == (2, ""), err
    assert message in err
    assert not Path("out").exists() and not list(Path().glob(".tlora-*"))


def test_a_run_that_goes_on_is_not_published(cli: Cli, trained: Path, tmp_path: Path) -> None:
    with locked(trained):
        status, _, err = cli(trained, "--output", tmp_path / "out", "--base", SDXL)
    assert status == 4 and "wait for its end" in err


def test_an_existing_folder_stays(cli: Cli, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    status, _, err = cli(trained, "--output", tmp_path / "out", "--base", SDXL)
    assert status == 2 and "exists already" in err
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["mine.txt"]
