"""`tlora convert`: any readable adapter becomes a file that says its own schedule."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from adapter_files import convert, random_adapter, write_bases
from reference_runs import REFERENCE, Run, base_folder, difference
from safetensors.torch import save_file
from training_runs import tlora

from tlora_cli import RankSchedule, UserError, load_adapter
from tlora_cli.formats import read_adapter, tlora_file


@pytest.mark.parametrize("name", ["sdxl_ortho_lora_last", "flux_lora"])
def test_a_published_checkpoint_becomes_a_file_that_stands_alone(name: str, tmp_path: Path) -> None:
    run = Run(name)
    run.adapter.remove()
    base, output = base_folder(tmp_path, run), tmp_path / "new" / "dog.safetensors"
    min_rank = run.case["min_rank"]
    arguments = (REFERENCE / name, "--output", output, "--base", base)
    with pytest.raises(UserError, match="does not say its rank schedule"):
        convert(*arguments)
    assert not output.exists()
    said = convert(
        *arguments, "--min-rank", str(min_rank), "--placeholder", "sks", "--class", "dog"
    )
    family, method = name.split("_")[0], "tlora" if "ortho" in name else "vanilla_tlora"
    assert said.startswith(f"wrote {output}: {family} {method}, rank 8, least rank {min_rank}, ")
    adapter = load_adapter(run.denoiser, output)
    assert said.endswith(f", {len(adapter.layers)} layers\n")
    assert adapter.schedule == RankSchedule(8, min_rank)
    assert (adapter.info.placeholder, adapter.info.class_name) == ("sks", "dog")
    assert adapter.info.base_model == str(base)
    assert difference(run.probe(), run.data["probe_outputs"]) < 1e-4
    with pytest.raises(UserError, match="the output file exists already"):
        convert(*arguments, "--min-rank", "4")


def test_kohya_names_are_resolved_against_the_standard_models(tmp_path: Path) -> None:
    stems = {
        "lora_unet_output_blocks_5_1_transformer_blocks_1_attn2_to_k": (2048, 640),
        "lora_unet_mid_block_attentions_0_transformer_blocks_9_attn1_to_out_0": (1280, 1280),
    }
    tensors = {}
    for stem, (inputs, outputs) in stems.items():
        tensors[f"{stem}.lora_down.weight"] = torch.randn(4, inputs)
        tensors[f"{stem}.lora_up.weight"] = torch.randn(outputs, 4)
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    save_file(tensors, tmp_path / "kohya.safetensors")
    output = tmp_path / "out.safetensors"
    assert convert(tmp_path / "kohya.safetensors", "--output", output) == (
        f"wrote {output}: sdxl lora, rank 4, 2 layers\n"
    )
    weights = read_adapter(output, [])
    assert weights.schedule == RankSchedule(4, 4, kind="constant")
    assert set(weights.layers) == {
        "up_blocks.1.attentions.2.transformer_blocks.1.attn2.to_k",
        "mid_block.attentions.0.transformer_blocks.9.attn1.to_out.0",
    }
    masked = tmp_path / "masked.safetensors"
    convert(tmp_path / "kohya.safetensors", "--output", masked, "--min-rank", "2", "--alpha", "1.5")
    assert read_adapter(masked, []).schedule == RankSchedule(4, 2, 1.5)
    assert read_adapter(masked, []).info.method == "vanilla_tlora"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--family", "sd2"), "--family sd2 is not known"),
        (("--family", "flux"), "the adapter is for sdxl, not flux"),
        (("--min-rank", "9"), "min_rank 9 must lie in 1..rank (4)"),
        (("--alpha", "2"), "alpha shapes a rank schedule, and the file is a plain LoRA"),
        (("--min-rank", "2", "--alpha", "0"), "alpha 0.0 must be a number above 0"),
    ],
)
def test_refusals(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    name = "unet.mid_block.attentions.0.proj_in"
    tensors = {f"{name}.lora_A.weight": torch.ones(4, 1280)}
    tensors[f"{name}.lora_B.weight"] = torch.ones(1280, 4)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError) as refused:
        convert(tmp_path / "a.safetensors", "--output", tmp_path / "b.safetensors", *options)
    assert refused.value.what == message
    assert not (tmp_path / "b.safetensors").exists()


def test_an_adapter_of_another_shape_is_refused(tmp_path: Path) -> None:
    name = "mid_block.attentions.0.proj_in"
    tensors = {f"unet.{name}.lora_A.weight": torch.ones(4, 768)}
    tensors[f"unet.{name}.lora_B.weight"] = torch.ones(768, 4)
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError) as refused:
        convert(tmp_path / "a.safetensors", "--output", tmp_path / "b.safetensors")
    assert refused.value.what == (
        f"layer {name} is 1280x1280 in the model but 768x768 in the adapter"
    )
    with pytest.raises(UserError, match=r"--output must end in \.safetensors"):
        convert(tmp_path / "a.safetensors", "--output", tmp_path / "b.pt")


def test_the_adapters_own_base_gives_the_shapes(tmp_path: Path) -> None:
    """An adapter of another base than the standard one is converted without --base."""
    folder = write_bases(tmp_path / "bases")["sdxl"]
    source, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    weights = random_adapter(source, "sdxl")
    with pytest.raises(UserError, match="is 640x640 in the model but 64x64 in the adapter"):
        convert(source, "--to", "kohya", "--output", output)
    info = dataclasses.replace(weights.info, base_model=str(folder))
    tlora_file.write(source, dataclasses.replace(weights, info=info), timestep_scale=1.0)
    assert f"{len(weights.layers)} layers" in convert(source, "--to", "kohya", "--output", output)


def test_a_warning_is_one_line(tmp_path: Path) -> None:
    source, output = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tensors = {}
    for stem in ("lora_unet_mid_block_attentions_0_proj_in", "lora_te1_layers_0_fc1"):
        tensors[f"{stem}.lora_down.weight"] = torch.ones(2, 1280)
        tensors[f"{stem}.lora_up.weight"] = torch.ones(1280, 2)
    save_file(tensors, source)
    done = tlora("convert", source, "--output", output)
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line == (
        "warning: a.safetensors also adapts text encoders (2 tensors); they are not applied, so "
        "pictures differ from those of other tools"
    )
