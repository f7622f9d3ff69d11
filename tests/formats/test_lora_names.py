"""LoRAs in the names of every tool: the update is the known one, or the file's right name is told.

Each file holds the same random update of the attention layers, and must give it back.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel, StableDiffusionXLPipeline, UNet2DConditionModel
from lora_files import check_same, updates
from safetensors.torch import save_file
from torch import Tensor, nn
from training_runs import tlora

from tlora_cli import UserError, load_adapter
from tlora_cli.formats import read_adapter, read_origin
from tlora_cli.formats.kohya_names import known_names

RANK = 4
Pairs = dict[str, tuple[Tensor, Tensor]]
"""Name of a layer -> down (r, in), up (out, r)."""
PEFT, KOHYA = (".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")
DEFAULT = (".lora_A.default.weight", ".lora_B.default.weight")
LINEAR = (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight")


@pytest.fixture(scope="module")
def models(tiny_sdxl: Path, tiny_flux: Path) -> dict[str, nn.Module]:
    return {
        "sdxl": UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet"),
        "flux": FluxTransformer2DModel.from_pretrained(tiny_flux, subfolder="transformer"),
    }


@pytest.fixture(scope="module")
def pairs(models: dict[str, nn.Module]) -> dict[str, Pairs]:
    """Return family -> factors of the queries, keys, values and outputs of each attention."""
    torch.manual_seed(0)
    return {
        family: {
            name: (torch.randn(RANK, one.in_features), torch.randn(one.out_features, RANK))
            for name, one in model.named_modules()
            if isinstance(one, nn.Linear)
            and (".attn" in name and (".to_" in name or ".add_" in name))
            and ".to_add_out" not in name
        }
        for family, model in models.items()
    }


def linears(model: nn.Module) -> dict[str, nn.Linear]:
    return {name: one for name, one in model.named_modules() if isinstance(one, nn.Linear)}


def named(pairs: Pairs, prefix: str, parts: tuple[str, str] = PEFT) -> dict[str, Tensor]:
    return {
        f"{prefix}{name}{part}": factor
        for name, pair in pairs.items()
        for part, factor in zip(parts, pair, strict=True)
    }


def compiled(pairs: Pairs) -> Pairs:
    """Return names as they are where each block was compiled or wrapped for itself."""
    return {name.replace("blocks.0.", "blocks.0._orig_mod."): p for name, p in pairs.items()}


def bfl(pairs: Pairs) -> Pairs:
    """Return the factors in Black Forest Labs' layers: queries, keys and values are one."""
    found: Pairs = {}

    def fused(names: list[str]) -> tuple[Tensor, Tensor]:
        return (
            torch.cat([pairs[name][0] for name in names]),
            torch.block_diag(*[pairs[name][1] for name in names]),
        )

    for block in sorted({".".join(name.split(".")[:2]) for name in pairs}):
        kind, number = block.split(".")
        own = [f"{block}.attn.to_{one}" for one in "qkv"]
        if kind == "transformer_blocks":
            text = [f"{block}.attn.add_{one}_proj" for one in "qkv"]
            found[f"double_blocks.{number}.img_attn.qkv"] = fused(own)
            found[f"double_blocks.{number}.txt_attn.qkv"] = fused(text)
            found[f"double_blocks.{number}.img_attn.proj"] = pairs[f"{block}.attn.to_out.0"]
        else:
            down, up = fused(own)
            mlp = torch.zeros(4 * up.shape[0] // 3, up.shape[1])
            found[f"single_blocks.{number}.linear1"] = (down, torch.cat([up, mlp]))
    return found


def xlabs(pairs: Pairs) -> dict[str, Tensor]:
    """Return the names of XLabs' trainer, whose queries, keys and values share one pair."""
    tensors = {}
    for name, (down, up) in bfl(pairs).items():
        kind, number, *layer = name.split(".")
        stem = f"{kind}.{number}.processor."
        if layer == ["linear1"]:
            stem, up = f"{stem}qkv_lora", up[: up.shape[0] * 3 // 7]
        else:
            stream = 2 if layer[0] == "txt_attn" else 1
            stem = f"{stem}{layer[1]}_lora{stream}"
        tensors |= {f"{stem}.down.weight": down, f"{stem}.up.weight": up}
    return tensors


def sgm(pairs: Pairs, model: nn.Module) -> Pairs:
    """Return the factors under the original UNet's names, with dots."""
    names = {
        layers[0]: alias
        for alias, layers in known_names(linears(model)).items()
        if alias.startswith(("input_blocks", "output_blocks", "middle_block"))
    }
    found = {}
    for name, pair in pairs.items():
        tail = name[name.index("transformer_blocks") :]
        stem = names[name].removesuffix(tail.replace(".", "_")).rstrip("_")
        parts = stem.split("_")
        found[f"{'_'.join(parts[:2])}.{'.'.join(parts[2:])}.{tail}"] = pair
    return found


def with_alpha(tensors: dict[str, Tensor], alpha: Tensor) -> dict[str, Tensor]:
    stems = {key.partition(".lora_")[0] for key in tensors}
    return tensors | {f"{stem}.alpha": alpha.clone() for stem in stems}


def kohya(pairs: Pairs, prefix: str = "lora_unet_") -> Pairs:
    return {prefix + name.replace(".", "_"): pair for name, pair in pairs.items()}


Make = Callable[[Pairs, nn.Module], dict[str, Tensor]]
FLUX: dict[str, Make] = {
    "diffusers": lambda p, m: named(p, "transformer."),
    "compiled": lambda p, m: named(p, "transformer._orig_mod."),
    "compiled blocks": lambda p, m: named(compiled(p), "transformer."),
    "default": lambda p, m: named(p, "transformer.", DEFAULT),
    "default, bare": lambda p, m: named(p, "", DEFAULT),
    "ComfyUI's prefix": lambda p, m: named(p, "diffusion_model."),
    "lora_down": lambda p, m: named(p, "transformer.", KOHYA),
    "no ending": lambda p, m: named(p, "transformer.", (".lora_A", ".lora_B")),
    "BFL in ComfyUI": lambda p, m: named(bfl(p), "diffusion_model."),
    "BFL in a model": lambda p, m: named(bfl(p), "model.diffusion_model."),
    "BFL, lora_down": lambda p, m: named(bfl(p), "diffusion_model.", KOHYA),
    "BFL, bare": lambda p, m: named(bfl(p), ""),
    "BFL, transformer": lambda p, m: named(bfl(p), "transformer."),
    "BFL, fal": lambda p, m: named(bfl(p), "base_model.model."),
    "XLabs": lambda p, m: xlabs(p),
    "XLabs in ComfyUI": lambda p, m: {f"diffusion_model.{k}": t for k, t in xlabs(p).items()},
    "kohya": lambda p, m: named(kohya(bfl(p)), "", KOHYA),
    "kohya, lora_A": lambda p, m: named(kohya(bfl(p)), "", PEFT),
    "OneTrainer": lambda p, m: named(kohya(p, "lora_transformer_"), "", KOHYA),
    "LyCORIS": lambda p, m: named(kohya(p, "lycoris_"), "", KOHYA),
}
SDXL: dict[str, Make] = {
    "diffusers": lambda p, m: named(p, "unet."),
    "compiled": lambda p, m: named(p, "unet._orig_mod."),
    "default": lambda p, m: named(p, "unet.", DEFAULT),
    "DDP": lambda p, m: named(p, "module."),
    "DDP in a pipeline": lambda p, m: named(p, "unet.module."),
    "FSDP": lambda p, m: named(p, "unet._fsdp_wrapped_module."),
    "PEFT in a pipeline": lambda p, m: named(p, "unet.base_model.model."),
    "lora_down": lambda p, m: named(p, "unet.", KOHYA),
    "linear layer": lambda p, m: named(p, "unet.", LINEAR),
    "SGM in a pipeline": lambda p, m: named(sgm(p, m), "unet."),
    "SGM in ComfyUI": lambda p, m: named(sgm(p, m), "diffusion_model.", KOHYA),
    "SGM, bare": lambda p, m: named(sgm(p, m), ""),
    "kohya": lambda p, m: named(kohya(p), "", KOHYA),
    "alpha of whole numbers": lambda p, m: with_alpha(
        named(kohya(p), "", KOHYA), torch.tensor(RANK)
    ),
    "alpha of one byte": lambda p, m: with_alpha(
        named(kohya(p), "", KOHYA), torch.tensor(RANK, dtype=torch.uint8)
    ),
    "alpha in a list": lambda p, m: with_alpha(named(kohya(p), "", KOHYA), torch.tensor([RANK])),
    "1 x 1": lambda p, m: {
        key: tensor[:, :, None, None] for key, tensor in named(kohya(p), "", KOHYA).items()
    },
    "zero biases": lambda p, m: (
        named(p, "unet.")
        | {f"unet.{name}.lora_B.bias": torch.zeros(4) for name in p}
        | {"unet.conv_in.diff_b": torch.zeros(4)}
    ),
}
CASES = [("flux", name) for name in FLUX] + [("sdxl", name) for name in SDXL]


@pytest.mark.filterwarnings("ignore:.*does not say its scale")
@pytest.mark.parametrize(("family", "case"), CASES)
def test_every_naming_is_read(
    family: str,
    case: str,
    models: dict[str, nn.Module],
    pairs: dict[str, Pairs],
    tmp_path: Path,
) -> None:
    tensors = {"flux": FLUX, "sdxl": SDXL}[family][case](pairs[family], models[family])
    file = tmp_path / "a.safetensors"
    save_file({key: tensor.contiguous().clone() for key, tensor in tensors.items()}, file)
    assert read_origin(file)[0] == family
    weights = read_adapter(file, linears(models[family]))
    assert weights.family == family
    check_same(updates(weights), {name: up @ down for name, (down, up) in pairs[family].items()})


def test_half_alpha_halves_in_every_naming(
    models: dict[str, nn.Module], pairs: dict[str, Pairs], tmp_path: Path
) -> None:
    wanted = {name: up @ down / 2 for name, (down, up) in pairs["sdxl"].items()}
    own = pairs["sdxl"]
    for stem in (sgm(own, models["sdxl"]), kohya(own), own):
        tensors = with_alpha(named(stem, "", KOHYA), torch.tensor(RANK // 2))
        save_file({k: t.contiguous().clone() for k, t in tensors.items()}, tmp_path / "a.st")
        check_same(updates(read_adapter(tmp_path / "a.st", linears(models["sdxl"]))), wanted)


def test_the_last_modulation_has_its_halves_turned(models: Any, tmp_path: Path) -> None:
    """The original gives shift, then scale; diffusers scale, then shift."""
    layer = models["flux"].norm_out.linear
    down, up = torch.randn(2, layer.in_features), torch.randn(layer.out_features, 2)
    for name in ("lora_unet_final_layer_adaLN_modulation_1", "final_layer.adaLN_modulation.1"):
        parts = KOHYA if name.startswith("lora") else PEFT
        save_file(named({name: (down, up)}, "", parts), tmp_path / "a.st")
        [found] = updates(read_adapter(tmp_path / "a.st", linears(models["flux"]))).values()
        shift, scale = (up @ down).chunk(2)
        torch.testing.assert_close(found, torch.cat([scale, shift]))


ONE = torch.ones(1, 1)
OTHERS: dict[str, tuple[list[str], str]] = {
    "Wan": (["diffusion_model.blocks.0.self_attn.q"], "as Wan has"),
    "HunyuanVideo": (["diffusion_model.double_blocks.0.img_attn_qkv"], "as HunyuanVideo has"),
    "HiDream": (["diffusion_model.double_stream_blocks.0.block.attn1.to_q"], "as HiDream has"),
    "Lumina": (["diffusion_model.layers.0.attention.qkv"], "as Lumina 2 or Z-Image has"),
    "Qwen": (["transformer.transformer_blocks.0.img_mod.1"], "as Qwen-Image has"),
    "SD3": (["diffusion_model.joint_blocks.0.x_block.attn.qkv"], "as Stable Diffusion 3 has"),
    "FLUX.2": (["transformer.single_transformer_blocks.0.attn.to_qkv_mlp_proj"], "as FLUX.2 has"),
    "Chroma": (["diffusion_model.distilled_guidance_layer.layers.0.in_layer"], "as Chroma has"),
    "SD1": (["unet.down_blocks.0.attentions.0.proj_in"], "as Stable Diffusion 1 or 2 has"),
    "LTX": (["transformer.transformer_blocks.0.attn1.to_q"], "as LTX-Video"),
    "musubi Wan": (["lora_unet_blocks_0_self_attn_q"], "as Wan has"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_loras_of_other_models_are_called_by_their_names(
    case: str, models: dict[str, nn.Module], tmp_path: Path
) -> None:
    names, words = OTHERS[case]
    parts = KOHYA if names[0].startswith("lora_") else PEFT
    save_file(named({name: (ONE, ONE.clone()) for name in names}, "", parts), tmp_path / "a.st")
    for model in models.values():
        with pytest.raises(UserError) as refused:
            read_adapter(tmp_path / "a.st", linears(model))
        assert words in refused.value.what
        assert refused.value.do.startswith("use it with ")


DOWN_UP = ("down", "up")
KEY = "unet.mid_block.attentions.0.proj_in"
REFUSED: dict[str, tuple[dict[str, Tensor], str]] = {
    "two adapters": (
        {f"{KEY}.lora_{p}.default.weight": ONE for p in "AB"}
        | {f"{KEY[:-3]}out.lora_{p}.other.weight": ONE for p in "AB"},
        "holds 2 adapters: default, other",
    ),
    "twice": (
        {f"{KEY}.lora_{p}.weight": ONE for p in "AB"}
        | {f"{KEY}.lora_{p}.weight": ONE for p in DOWN_UP},
        "twice, the second time as",
    ),
    "several alphas": (
        {f"{KEY}.lora_{p}.weight": ONE for p in "AB"} | {f"{KEY}.alpha": torch.ones(3)},
        "is 3 numbers, not one",
    ),
    "control": (
        {f"{KEY}.lora_{p}.weight": ONE for p in "AB"}
        | {"double_blocks.0.img_attn.norm.query_norm.scale": ONE},
        "is a control LoRA",
    ),
    "true biases": (
        {f"{KEY}.lora_{p}.weight": ONE for p in "AB"} | {f"{KEY}.lora_B.bias": torch.ones(1)},
        "a LoRA with biases",
    ),
    "text alone": (
        {
            f"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_{p}.weight": ONE
            for p in ("up", "down")
        },
        "changes text encoders alone",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_applied_is_refused_by_its_name(
    case: str, models: dict[str, nn.Module], tmp_path: Path
) -> None:
    tensors, words = REFUSED[case]
    save_file({key: tensor.clone() for key, tensor in tensors.items()}, tmp_path / "a.st")
    with pytest.raises(UserError) as refused, warnings.catch_warnings():
        warnings.simplefilter("error")
        read_adapter(tmp_path / "a.st", linears(models["sdxl"]))
    assert words in refused.value.what


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "began as pissa_niter_4"),
        ({"init_lora_weights": "olora"}, "began as olora"),
        ({"peft_type": "LOHA"}, "of PEFT's kind LOHA"),
    ],
)
def test_peft_adapters_that_are_no_update_of_the_base(
    settings: dict[str, Any], words: str, pairs: Any, models: Any, tmp_path: Path
) -> None:
    save_file(named(pairs["sdxl"], "base_model.model."), tmp_path / "adapter_model.safetensors")
    config = {"r": RANK, "lora_alpha": RANK, **settings}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match=words):
        read_adapter(tmp_path, linears(models["sdxl"]))


def test_a_scale_that_is_not_said_is_told(pairs: Any, models: Any, tmp_path: Path) -> None:
    save_file(named(bfl(pairs["flux"]), "base_model.model."), tmp_path / "a.st")
    with pytest.warns(UserWarning, match="does not say its scale"):
        read_adapter(tmp_path / "a.st", linears(models["flux"]))


def test_learned_words_in_a_bundle_are_left_out_and_said(
    pairs: Any, models: Any, tmp_path: Path
) -> None:
    tensors = named(kohya(pairs["sdxl"]), "", KOHYA)
    tensors |= {f"bundle_emb.sks.clip_{one}": torch.ones(1, 3) for one in "lg"}
    save_file(tensors, tmp_path / "a.st")
    with pytest.warns(UserWarning, match=r"learned words \(sks\), which are not used"):
        weights = read_adapter(tmp_path / "a.st", linears(models["sdxl"]))
    assert updates(weights).keys() == pairs["sdxl"].keys()


def test_both_namings_in_one_file_are_said(pairs: Any, models: Any, tmp_path: Path) -> None:
    """As of files on model sites; diffusers leaves kohya's names out, too."""
    tensors = named(pairs["sdxl"], "unet.") | {"lora_unet_x.lora_up.weight": ONE}
    save_file(tensors, tmp_path / "a.st")
    with pytest.warns(UserWarning, match="also holds 1 tensors in kohya's names"):
        weights = read_adapter(tmp_path / "a.st", linears(models["sdxl"]))
    assert updates(weights).keys() == pairs["sdxl"].keys()


def test_the_command_line_converts_other_namings(
    pairs: Any, tiny_flux: Path, tmp_path: Path
) -> None:
    save_file(named(bfl(pairs["flux"]), "diffusion_model."), tmp_path / "comfy.SAFETENSORS")
    outcome = tlora(
        "convert",
        tmp_path / "comfy.SAFETENSORS",
        "--base",
        tiny_flux,
        "--output",
        tmp_path / "o.SAFETENSORS",
    )
    assert outcome.returncode == 0, outcome.stderr
    assert f"flux lora, rank {RANK}, {len(pairs['flux'])} layers" in outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("header", "base", "said"),
    [
        ({"ss_v_parameterization": "True"}, "epsilon", True),
        ({"modelspec.prediction_type": "v"}, "epsilon", True),
        ({"ss_v_parameterization": "True"}, "v_prediction", False),
        ({"ss_v_parameterization": "False"}, "epsilon", False),
    ],
)
def test_a_lora_for_a_base_that_predicts_v(
    header: dict[str, str],
    base: str,
    said: bool,
    pairs: Any,
    tiny_sdxl: Path,
    tmp_path: Path,
) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipeline.scheduler.register_to_config(prediction_type=base)
    save_file(named(kohya(pairs["sdxl"]), "", KOHYA), tmp_path / "a.safetensors", header)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        load_adapter(pipeline, tmp_path / "a.safetensors")
    assert any("a base that predicts v" in str(one.message) for one in told) == said
