"""Every pair of formats: what comes out has the update that went in, to a millionth.

What each file holds is read here by the formula of its format, not by the program's readers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from adapter_files import (
    LOW_RANK,
    active,
    close,
    convert,
    masked_update,
    random_adapter,
    write_bases,
)
from diffusers import FluxPipeline
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tlora_cli import RankSchedule, UserError
from tlora_cli.formats import FORMATS as KNOWN
from tlora_cli.formats import AdapterInfo, AdapterWeights, read_adapter, read_origin, tlora_file
from tlora_cli.methods import METHODS

FORMATS = {
    "sdxl": ("tlora", "diffusers", "peft", "kohya", "comfyui", "lycoris", "published"),
    "flux": ("tlora", "diffusers", "peft", "kohya", "comfyui", "lycoris"),
    "flux2": ("tlora", "diffusers", "peft", "kohya", "comfyui", "lycoris"),
    "z_image": ("tlora", "diffusers", "peft", "kohya", "comfyui", "lycoris"),
    "qwen_image": ("tlora", "diffusers", "peft", "kohya", "comfyui", "lycoris"),
    "sd3": ("tlora", "diffusers", "peft", "comfyui", "lycoris"),
    "krea2": ("tlora", "diffusers", "peft", "comfyui", "lycoris"),
}
MASKED = ("tlora", "lycoris", "published")
"""Formats with one component a rank, which a schedule can switch."""
QUICK: dict[str, Sequence[str]] = {"sdxl": LOW_RANK, "flux": ("tlora", "lora")}
"""Methods that are quick to try; for SDXL all: other families differ in names only."""
CASES = [
    pytest.param(
        *(family, target, method),
        marks=() if method in QUICK.get(family, ()) else pytest.mark.full,
    )
    for family, targets in FORMATS.items()
    for target in targets
    for method in LOW_RANK
]
FIRST = {"sdxl": ("comfyui", "lycoris"), "flux": ("kohya",)}
"""Formats that are quick to try as the first of a pair: stacked pairs, products, fused layers."""
TIMES = (0.0, 450.0, 999.0)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_bases(tmp_path_factory.mktemp("bases"))


def test_all_targets_are_here() -> None:
    assert {*FORMATS["sdxl"], "embedding"} == set(KNOWN)  # that one has no update


def written(source: Path, target: str, base: Path, output: Path, family: str | None = None) -> Path:
    """Convert a file, of a family if one is told; return it, or a published checkpoint's folder."""
    output = output if KNOWN[target].folder else output.with_suffix(".safetensors")
    told = ("--family", family) if family else ()
    convert(source, "--to", target, "--base", base, *told, "--output", output)
    if target == "comfyui":
        return output / f"{output.name}-plain.safetensors"
    return next(output.glob("checkpoint-*")) if target == "published" else output


@cache
def contents(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with safe_open(path, "pt") as file:
        return load_file(path), file.metadata() or {}


def held(path: Path, target: str, family: str, layer: str, ranks: int) -> Tensor:
    """Return a layer's update by the format's formula in float64, of the first ranks only."""
    if target == "published":
        path /= "pytorch_lora_weights.safetensors"
    if target == "peft":
        path /= "adapter_model.safetensors"
    tensors, header = contents(path)
    if target in ("tlora", "diffusers", "peft"):
        copies = int(header.get("tlora.copies", 1))
        stem = f"{'unet' if family == 'sdxl' else 'transformer'}.{layer}"
        stem = f"base_model.model.{layer}" if target == "peft" else stem
        down, up = (tensors[f"{stem}.lora_{x}.weight"].double() for x in "AB")
        kept = (torch.arange(len(down) // copies) < ranks).repeat(copies)
        return up[:, kept] @ down[kept]
    attention, _, projection = layer.removesuffix(".0").rpartition(".")
    stem, weight = f"{attention}.processor.{projection}_lora.", ".weight"
    if target == "lycoris":
        stem, weight = f"lycoris_{layer.replace('.', '_')}.", ""
    names = ("down.weight", "up.weight", "q_layer.weight", "lambda_layer", "p_layer.weight",
             f"base_q{weight}", "base_lambda", f"base_p{weight}", "alpha")  # fmt: skip
    part = {n: tensors[stem + n].double() for n in names if stem + n in tensors}
    if "down.weight" in part:
        return part["up.weight"][:, :ranks] @ part["down.weight"][:ranks]
    mask = (torch.arange(part["lambda_layer"].numel()) < ranks).double()
    now = part["p_layer.weight"] @ ((mask * part["lambda_layer"]).T * part["q_layer.weight"])
    start = part[f"base_p{weight}"] @ ((mask * part["base_lambda"]).T * part[f"base_q{weight}"])
    return float(part.get("alpha", len(mask))) / len(mask) * (now - start)


@pytest.mark.parametrize(("family", "target", "method"), CASES)
def test_there_and_back(
    family: str, target: str, method: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    source, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    rank = 1 + LOW_RANK.index(method)  # 1 to 6
    weights = random_adapter(source, family, method, rank=rank)
    assert weights.schedule is not None and weights.schedule.rank == rank
    there = written(source, target, bases[family], tmp_path / f"to-{target}")
    # Of few blocks, some families' names are those of others; the base's folder is no whole one.
    convert(there, "--base", bases[family], "--family", family, "--output", back)
    again = read_adapter(back, [])
    assert again.layers.keys() == weights.layers.keys()
    assert again.family == family
    if target in MASKED:
        assert again.schedule is not None
        assert [again.schedule.active_rank(t) for t in range(1001)] == [
            weights.schedule.active_rank(t) for t in range(1001)
        ]
    for layer in weights.layers:
        for t in TIMES if target in MASKED else TIMES[:1]:
            expected, ranks = masked_update(weights, layer, t), active(weights.schedule, t)
            if target in (*MASKED, "diffusers", "peft"):
                everything = ranks if target in MASKED else 10**6
                assert close(held(there, target, family, layer, everything), expected), (layer, t)
            everything = ranks if target in MASKED else 10**6
            assert close(held(back, "tlora", family, layer, everything), expected), (layer, t)


@pytest.mark.parametrize(
    ("family", "first"),
    [
        pytest.param(
            family, first, marks=() if first in FIRST.get(family, ()) else pytest.mark.full
        )
        for family in FORMATS
        for first in FORMATS[family]
    ],
)
def test_from_each_format_to_each_other(
    family: str, first: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    """T-LoRA at full rank, over two formats and back to ours."""
    source, base = tmp_path / "ours.safetensors", bases[family]
    weights = random_adapter(source, family)
    one = written(source, first, base, tmp_path / f"first-{first}")
    for second in FORMATS[family]:
        two = written(one, second, base, tmp_path / second, family)
        back = tmp_path / f"back-from-{second}.safetensors"
        convert(two, "--base", base, "--family", family, "--output", back)
        assert read_origin(back)[0] == family
        for layer in weights.layers:
            found = held(back, "tlora", family, layer, 10**6)
            assert close(found, masked_update(weights, layer, 0.0)), (second, layer)


@pytest.mark.parametrize("target", FORMATS["sdxl"])
def test_a_small_update_is_not_lost_in_its_start(
    target: str, bases: dict[str, Path], tmp_path: Path
) -> None:
    """After few steps the update is a thousandth of the products it is the difference of."""
    source, back = tmp_path / "ours.safetensors", tmp_path / "back.safetensors"
    weights = random_adapter(source, "sdxl", "tlora", small=1e-3)
    there = written(source, target, bases["sdxl"], tmp_path / f"to-{target}")
    convert(there, "--base", bases["sdxl"], "--output", back)
    for layer in weights.layers:
        expected = masked_update(weights, layer, 0.0)
        assert close(held(back, "tlora", "sdxl", layer, 10**6), expected), layer


def test_stock_diffusers_undoes_the_fusion_of_the_true_flux(tmp_path: Path) -> None:
    """diffusers knows the sizes of FLUX.1 only, so this has them, at two blocks."""
    chance = torch.Generator().manual_seed(0)
    blocks = ("transformer_blocks.7.attn.", "single_transformer_blocks.31.attn.")
    double = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj")
    names = [blocks[0] + name for name in double] + [blocks[1] + name for name in double[:3]]
    layers = {
        name: (
            torch.randn(4, 3072, generator=chance), torch.randn(3072, 4, generator=chance)
        )
        for name in names
    }  # fmt: skip
    weights = AdapterWeights(layers, 2, RankSchedule(2, 1), "flux", AdapterInfo(method="tlora"))
    source, probe = tmp_path / "a.safetensors", torch.randn(3072, 5, generator=chance)
    tlora_file.write(source, weights, timestep_scale=1000.0)
    for target in ("kohya", "diffusers", "tlora"):
        there = tmp_path / f"{target}.safetensors"
        convert(source, "--to", target, "--output", there)
        state, alphas, metadata = FluxPipeline.lora_state_dict(
            str(there), return_alphas=True, return_lora_metadata=True
        )
        assert not alphas
        if metadata:
            assert metadata["transformer.lora_alpha"] == metadata["transformer.r"]
        for name, (down, up) in layers.items():
            found = [state[f"transformer.{name}.lora_{x}.weight"] for x in "BA"]
            answer = found[0] @ (found[1] @ probe)
            torch.testing.assert_close(answer, up @ (down @ probe), rtol=1e-5, atol=1e-2)


# --- what a format can't hold ------------------------------------------------------------------


def test_what_is_lost_is_said(bases: dict[str, Path], tmp_path: Path) -> None:
    for method in ("lora", "pissa", "tlora"):
        source = tmp_path / f"{method}.safetensors"
        random_adapter(source, "sdxl", method)
        masked = METHODS[method].masked
        for target in ("diffusers", "kohya", "peft"):
            output = tmp_path / f"{method}-{target}.safetensors"
            output = output if target != "peft" else output.with_suffix("")
            said = convert(source, "--to", target, "--base", bases["sdxl"], "--output", output)
            assert ("the rank schedule is gone: all 6 ranks act" in said) == masked
        output = tmp_path / f"{method}-lycoris.safetensors"
        said = convert(source, "--to", "lycoris", "--base", bases["sdxl"], "--output", output)
        assert ("give LyCORIS rank 6, least rank 2, alpha 1, 1000 timesteps" in said) == masked
        assert ("base_* tensors belong to the update" in said) == (method != "pissa")


def test_a_method_without_ranks_stays_ours(bases: dict[str, Path], tmp_path: Path) -> None:
    """Our own file again, with another placeholder; no other format holds it."""
    source, output = tmp_path / "oft.safetensors", tmp_path / "new.safetensors"
    parts = {"mid_block.attentions.0.proj_in": {"entries": torch.randn(2, 4)}}
    info = AdapterInfo(method="oft", placeholder="sks", class_name="dog")
    weights = AdapterWeights({}, 1, None, "sdxl", info, parts, blocks=2)
    tlora_file.write(source, weights, timestep_scale=1.0)
    base = ("--base", bases["sdxl"])
    said = convert(source, "--output", output, "--placeholder", "zwx", *base)
    assert said == f"wrote {output}: sdxl oft, 1 layers\n"
    again = read_adapter(output, [])
    assert again.info.placeholder == "zwx" and again.blocks == 2
    entries = again.parts["mid_block.attentions.0.proj_in"]["entries"]
    assert torch.equal(entries, parts["mid_block.attentions.0.proj_in"]["entries"])
    for target in FORMATS["sdxl"][1:]:
        new = tmp_path / ("new" if KNOWN[target].folder else "b.safetensors")
        with pytest.raises(UserError, match="oft changes the weights themselves") as refused:
            convert(source, "--to", target, "--output", new, *base)
        assert "tlora merge" in refused.value.do
    with pytest.raises(UserError, match="oft has no ranks"):
        convert(source, "--output", tmp_path / "c.safetensors", "--min-rank", "2", *base)
