"""Adapters on denoisers that are compiled, wrapped, fused, or hold another LoRA."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_denoisers import FAMILIES, call, close, make_unet, put, stir, unet_inputs
from torch import Tensor, nn

from tlora_cli import UserError, attach, load_adapter
from tlora_cli.families import denoiser_of, family_of
from tlora_cli.families.wrapping import modules_of
from tlora_cli.injection.words import embeddings_of

T = torch.tensor([300])


def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")  # type: ignore[return-value]


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def compiled_blocks(model: nn.Module) -> nn.Module:
    model.compile_repeated_blocks(backend="eager")  # type: ignore[operator]
    return model


def compiled_part(model: nn.Module) -> nn.Module:
    name = "mid_block" if hasattr(model, "mid_block") else "proj_out"
    setattr(model, name, torch.compile(getattr(model, name), backend="eager"))
    return model


WAYS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "whole": compiled,
    "in place": compiled_in_place,
    "blocks": compiled_blocks,
    "part": compiled_part,
    "DataParallel": lambda model: nn.DataParallel(model),
}


LONG = [("sdxl", "whole"), ("sdxl", "in place")]
"""What takes many seconds to compile; the other family is tried in the same ways."""


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str], Path]:
    """Return a function: family -> file of an adapter that moves its small model."""

    def make(family: str) -> Path:
        adapter = stir(put(FAMILIES[family][0](), "tlora", 3))
        adapter.save(tmp_path / "a.safetensors")
        return tmp_path / "a.safetensors"

    return make


@pytest.mark.parametrize(
    "ran", [False, pytest.param(True, marks=pytest.mark.full)], ids=["fresh", "ran before"]
)
@pytest.mark.parametrize(
    ("family", "way"),
    [
        pytest.param(family, way, marks=pytest.mark.full if (family, way) in LONG else ())
        for family in FAMILIES
        for way in WAYS
    ],
)
def test_a_compiled_or_wrapped_denoiser(
    family: str, way: str, ran: bool, file: Callable[[str], Path]
) -> None:
    """It gives what the plain one gives, with the adapter and after it is gone."""
    make, make_inputs, _ = FAMILIES[family]
    inputs = make_inputs(1)
    with torch.no_grad():
        plain = make()
        base = call(plain, inputs, T, family)
        load_adapter(plain, file(family))
        wanted = call(plain, inputs, T, family)
        assert (wanted - base).abs().max() > 1e-3
        model = WAYS[way](make())
        if ran:  # torch does not look for hooks that came later
            assert close(call(model, inputs, T, family), base)
        adapter = load_adapter(model, file(family))
        assert not [name for name in adapter.layers if "_orig_mod" in name]
        assert close(call(model, inputs, T, family), wanted)
        adapter.remove()
        assert close(call(model, inputs, T, family), base)
    assert family_of(model).name == family
    assert denoiser_of(model) is adapter.denoiser


@pytest.mark.parametrize("family", FAMILIES)
def test_weights_that_diffusers_keeps_in_fp8(family: str, file: Callable[[str], Path]) -> None:
    """enable_layerwise_casting stores in fp8 and computes in fp32; the adapter stays fp32."""
    make, make_inputs, _ = FAMILIES[family]
    inputs, rounded, model = make_inputs(1), make(), make()
    model.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    with torch.no_grad():
        own = dict(model.named_parameters())
        for name, parameter in rounded.named_parameters():
            parameter.copy_(own[name].float())
        load_adapter(rounded, file(family))
        load_adapter(model, file(family))
        assert close(call(model, inputs, T, family), call(rounded, inputs, T, family))


def test_the_embeddings_of_a_compiled_text_encoder(tiny_flux: Path) -> None:
    """T5's own answer is a module that does not run; inside a wrapper it must be seen through."""
    from diffusers import FluxPipeline

    pipeline = FluxPipeline.from_pretrained(tiny_flux, transformer=None, vae=None)
    plain = embeddings_of(pipeline)
    for name in plain:
        setattr(pipeline, name, torch.compile(getattr(pipeline, name), backend="eager"))
    found = embeddings_of(pipeline)
    assert all(found[name] is module for name, module in plain.items())


def test_names_inside_wrappers() -> None:
    plain, model = make_unet(), make_unet()
    model.mid_block = torch.compile(model.mid_block, backend="eager")
    found = modules_of(torch.compile(model, backend="eager"))  # type: ignore[arg-type]
    assert found.keys() == dict(plain.named_modules()).keys()
    assert type(found["mid_block"]) is type(plain.mid_block)
    adapter = put(model, "tlora", 3)
    assert adapter.layers.keys() == put(plain, "tlora", 3).layers.keys()


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_projections_are_refused(family: str, file: Callable[[str], Path]) -> None:
    make, make_inputs, _ = FAMILIES[family]
    model, inputs = make(), make_inputs(1)
    adapter = load_adapter(model, file(family))
    before = call(model, inputs, T, family)
    model.fuse_qkv_projections()
    with pytest.raises(UserError, match="are fused") as refused:
        call(model, inputs, T, family)
    assert "unfuse_qkv_projections" in refused.value.do
    model.unfuse_qkv_projections()
    assert close(call(model, inputs, T, family), before)
    adapter.remove()
    model.fuse_qkv_projections()
    for put_on in (lambda: load_adapter(model, file(family)), lambda: put(model, "lora")):
        with pytest.raises(UserError, match="are fused"):
            put_on()


def test_a_fused_attention_does_not_matter_where_nothing_of_it_is_adapted() -> None:
    model, inputs = make_unet(), unet_inputs(1)
    adapter = stir(attach(model, "lora", 2, targets=r".*\.ff\.net\.2"))
    wanted = call(model, inputs, T, "sdxl")
    model.fuse_qkv_projections()
    assert close(call(model, inputs, T, "sdxl"), wanted)
    assert adapter.layers


def test_a_layer_that_was_replaced_is_told() -> None:
    model = make_unet()
    put(model, "tlora", 3)
    attention: Any = model.mid_block.attentions[0].transformer_blocks[0].attn1
    attention.to_k = copy.deepcopy(attention.to_k)
    with pytest.raises(UserError, match=r"layer mid_block.*\.attn1\.to_k was replaced"):
        call(model, unet_inputs(1), T, "sdxl")


def test_a_lora_of_peft_is_told(file: Callable[[str], Path]) -> None:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=2, target_modules=["to_q"])
    added = make_unet()
    added.add_adapter(settings)
    for model, words, remedy in (
        (added, "already has a LoRA of PEFT or diffusers", "unload_lora_weights"),
        (get_peft_model(make_unet(), settings), "is wrapped by PEFT", "unload()"),
    ):
        for put_on in (lambda m: load_adapter(m, file("sdxl")), lambda m: attach(m, "lora", 2)):
            with pytest.raises(UserError, match=words) as refused:
                put_on(model)
            assert remedy in refused.value.do


def test_weights_that_are_not_in_memory_are_told(file: Callable[[str], Path]) -> None:
    from accelerate import cpu_offload

    model = make_unet()
    cpu_offload(model, execution_device=torch.device("cpu"))
    with pytest.raises(UserError, match="not in memory") as refused:
        load_adapter(model, file("sdxl"))
    assert "enable_model_cpu_offload" in refused.value.do


@pytest.mark.full
def test_a_pipeline_with_a_compiled_unet(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Drawn through the stock pipeline, as users do."""
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipeline.set_progress_bar_config(disable=True)
    stir(attach(pipeline, "tlora", 4, 2)).save(tmp_path / "a.safetensors")
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)

    def drawn() -> Tensor:
        seed = torch.Generator().manual_seed(0)
        options = {"width": 64, "height": 64, "num_inference_steps": 2, "output_type": "latent"}
        return pipeline("a cat", generator=seed, return_dict=False, **options)[0]

    base = drawn()
    adapter = load_adapter(pipeline, tmp_path / "a.safetensors")
    wanted = drawn()
    assert (wanted - base).abs().max() > 1e-3
    adapter.remove()
    pipeline.unet = torch.compile(pipeline.unet, backend="eager")
    assert close(drawn(), base)
    load_adapter(pipeline, tmp_path / "a.safetensors")
    assert close(drawn(), wanted)
