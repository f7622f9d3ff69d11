"""Files made to hurt, each by what it once did: a traceback, a hang, memory without end."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from training_runs import run

from tlora_cli import RankSchedule, UserError, attach
from tlora_cli.evaluation.suites import read_prompts
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.formats import read_adapter
from tlora_cli.photos.training_images import load_training_images
from tlora_cli.recipe.reading import parse_recipe
from tlora_cli.training import run_folder
from tlora_cli.training.report.reading import read_run

LAYER = "transformer_blocks.0.attn.to_q"
PUBLISHED = "transformer_blocks.0.attn.processor.to_q_lora"


@pytest.fixture(scope="module")
def ours(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter file of ours."""
    from diffusers import UNet2DConditionModel

    file = tmp_path_factory.mktemp("ours") / "a.safetensors"
    unet = UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet")
    attach(unet, "tlora", rank=2).save(file)
    return file


def refused(file: Path, layers: Any = ()) -> str:
    with pytest.raises(UserError) as error:
        read_adapter(file, layers)
    return error.value.what


# --- headers --------------------------------------------------------------------------------------

HEADERS = {
    "points nested too deeply for the JSON reader": {"points": "[" * 100_000},
    "a recipe nested too deeply for the JSON reader": {"recipe": '{"a":' * 100_000},
    "a point of infinite rank": {"points": "[[0, Infinity]]", "schedule": "step"},
    "a point at no timestep": {"points": "[[NaN, 1]]", "schedule": "step"},
    "a table of a trillion timesteps": {"num_train_timesteps": str(10**12), "schedule": "random"},
    "a seed of a thousand bits": {"schedule_seed": str(2**1000), "schedule": "random"},
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_header_that_lies(case: str, ours: Path, tmp_path: Path) -> None:
    with safe_open(ours, "pt") as file:
        header = file.metadata()
    header |= {f"tlora.{key}": value for key, value in HEADERS[case].items()}
    save_file(load_file(ours), tmp_path / "a.safetensors", metadata=header)
    assert "the adapter's header is damaged" in refused(tmp_path / "a.safetensors")


def test_an_empty_tensor_of_endless_rank(tmp_path: Path) -> None:
    """Rows are split among the layers of a fused one, and a table of 2^40 columns was made."""
    name = "lora_unet_double_blocks_0_img_attn_qkv"
    header = {
        f"{name}.lora_down.weight": {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [0, 0]},
        f"{name}.lora_up.weight": {"dtype": "F32", "shape": [0, 2**40], "data_offsets": [0, 0]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    layers = {n for n, m in meta_denoiser("flux").named_modules() if isinstance(m, nn.Linear)}
    assert f"tensor {name}.lora_down.weight is empty" in refused(tmp_path / "a.safetensors", layers)


def test_an_empty_alpha(tmp_path: Path) -> None:
    tensors = kohya_tensors() | {"lora_unet_mid_block_a.alpha": torch.zeros(0)}
    save_file(tensors, tmp_path / "a.safetensors")
    assert "alpha is empty" in refused(tmp_path / "a.safetensors", ["mid_block.a"])


@pytest.mark.parametrize("kind", ["kohya", "peft"])
def test_a_factor_that_is_a_single_number(kind: str, tmp_path: Path) -> None:
    tensors = kohya_tensors() | {"lora_unet_mid_block_a.lora_down.weight": torch.tensor(1.0)}
    if kind == "peft":
        names = {"lora_unet_mid_block_a": "unet.mid_block.a", "lora_down": "lora_A"}
        tensors = {renamed(key, names | {"lora_up": "lora_B"}): t for key, t in tensors.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    message = refused(tmp_path / "a.safetensors", ["mid_block.a"])
    assert "do not fit each other: () and (3, 2)" in message


def test_a_scale_that_makes_factors_infinite(tmp_path: Path) -> None:
    tensors = kohya_tensors() | {"lora_unet_mid_block_a.alpha": torch.tensor(1e300).double()}
    save_file(tensors, tmp_path / "a.safetensors")
    # Beyond fp32 the alpha itself is refused; at its end the product is.
    assert "NaN or infinity" in refused(tmp_path / "a.safetensors", ["mid_block.a"])
    tensors["lora_unet_mid_block_a.alpha"] = torch.tensor(3e38)
    tensors["lora_unet_mid_block_a.lora_up.weight"] *= 9
    save_file(tensors, tmp_path / "a.safetensors")
    assert "scale of layer mid_block.a" in refused(tmp_path / "a.safetensors", ["mid_block.a"])


def kohya_tensors() -> dict[str, torch.Tensor]:
    stem = "lora_unet_mid_block_a"
    return {
        f"{stem}.lora_down.weight": torch.ones(2, 4),
        f"{stem}.lora_up.weight": torch.ones(3, 2),
        f"{stem}.alpha": torch.tensor(2.0),
    }


def renamed(key: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        key = key.replace(old, new)
    return key


PATTERNS = (
    "((a|.)+)+x",
    "(.*.*)*x",
    ".*.*.*.*x",
    "a?" * 40 + "a" * 40,
    "a{99999999999}",
    "(" * 3000,
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_that_takes_forever_to_match(pattern: str, tmp_path: Path) -> None:
    name = f"base_model.model.mid_block.{'a' * 60}"
    tensors = {
        f"{name}.lora_A.weight": torch.ones(2, 4),
        f"{name}.lora_B.weight": torch.ones(3, 2),
    }
    save_file(tensors, tmp_path / "a.safetensors")
    config = {"r": 2, "lora_alpha": 2, "rank_pattern": {pattern: 2}}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    assert "the LoRA's metadata is damaged" in refused(tmp_path / "a.safetensors")


def test_a_config_nested_too_deeply(tmp_path: Path) -> None:
    save_file({"base_model.model.a.lora_A.weight": torch.ones(2, 4)}, tmp_path / "a.safetensors")
    (tmp_path / "adapter_config.json").write_text("[" * 100_000)
    assert "nested too deeply" in refused(tmp_path / "a.safetensors")


def test_a_schedule_of_endless_timesteps() -> None:
    with pytest.raises(ValueError, match="must lie in"):
        RankSchedule(4, 2, num_train_timesteps=10**9)


# --- recipes and prompts --------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["a{99999999999999999999}", "(" * 5000])
def test_targets_too_large_for_an_expression(targets: str) -> None:
    recipe = (
        "family: sdxl\nbase: b\nconcept: {images: a, class: dog}\noutput: {dir: run}\n"
        f"adapter: {{targets: '{targets}'}}\n"
    )
    with pytest.raises(UserError, match=r"adapter\.targets: must be a regular expression"):
        parse_recipe(recipe)


@pytest.mark.parametrize("model", ["[a]", "{a: 1}"])
def test_a_base_that_is_a_list_or_a_section(model: str) -> None:
    """It was looked up among the bases with settings of their own, which takes a text."""
    recipe = (
        f"family: sdxl\nbase: {{model: {model}}}\nconcept: {{images: a, class: dog}}\n"
        "output: {dir: run}\n"
    )
    with pytest.raises(UserError, match=r"base\.model: must be text"):
        parse_recipe(recipe)


def test_prompts_whose_aliases_double_at_each_line(tmp_path: Path) -> None:
    lines = [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 50)]
    (tmp_path / "p.yaml").write_text("a0: &a0 [x, x]\n" + "".join(lines))
    with pytest.raises(UserError, match="aliases expand"):
        read_prompts(tmp_path / "p.yaml")
    (tmp_path / "p.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="nested too deeply"):
        read_prompts(tmp_path / "p.json")


def test_a_prompts_file_without_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tlora_cli.cli.app import main

    arguments = ["--adapter", "a", "--prompts-file", "/dev/zero"]
    monkeypatch.setattr("sys.argv", ["tlora", "sample", *arguments])
    assert main() == 2
    assert "too large for a prompts file" in capsys.readouterr().err


# --- pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "I;16", "CMYK"])
def test_a_picture_read_in_strips_is_the_picture(
    mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture is converted a few rows at a time, for the largest would take 4 GB at once."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 256, (40, 50, 4), generator=generator, dtype=torch.uint8).numpy()
    picture = Image.fromarray(values)
    if mode == "I;16":
        picture = Image.fromarray(values[:, :, 0].astype("uint16") * 257)
    elif mode != "RGBA":
        picture = (
            picture.convert("RGB").convert(mode) if mode in ("P", "CMYK") else picture.convert(mode)
        )
    file = tmp_path / f"a.{'tif' if mode == 'CMYK' else 'png'}"
    picture.save(file)
    [whole] = load_training_images(str(file), None, 40)
    monkeypatch.setattr("tlora_cli.foundation.pictures.STRIP", 120)
    [strips] = load_training_images(str(file), None, 40)
    assert torch.equal(whole.pixels, strips.pixels)


PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"


def test_a_program_in_place_of_a_preview_is_not_run(
    tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow gives PostScript to Ghostscript, whatever the file is called."""
    run(tiny_sdxl, tmp_path, train__steps=2, train__preview={"every": 1, "prompts": ["a V*"]})
    folder = run_folder.RunFolder(tmp_path / "run")
    [zeroth, first, second] = sorted(folder.previews.glob("*/*.png"))
    for file in (zeroth, first, folder.training_pictures / "000.png"):
        file.write_bytes(PROGRAM)
    second.unlink()
    second.mkdir()
    monkeypatch.setattr("subprocess.check_call", lambda *a, **k: pytest.fail("a program was run"))
    monkeypatch.setattr("subprocess.run", lambda *a, **k: pytest.fail("a program was run"))
    seen = read_run(folder.path)
    assert seen.previews == [] and seen.pictures == []
    notes = " ".join(seen.notes)
    for step, file in enumerate((zeroth, first)):
        assert f"The preview {file.name} of step {step} can't be read" in notes
    assert "The kept training pictures are not shown" in notes
