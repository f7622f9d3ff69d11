"""Layers by name: which they are, and that convolutions learn, mask and merge as linear ones do."""

from __future__ import annotations

import copy
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from small_denoisers import (
    BLOCKS,
    FAMILIES,
    MIN_RANK,
    RANK,
    call,
    close,
    in_double,
    make_transformer,
    make_unet,
    merged,
    rows,
    stir,
    unet_inputs,
)
from torch import Tensor, nn

from tlora_cli import Adapter, UserError, attach
from tlora_cli import families as kinds
from tlora_cli.families.reach import REACHES
from tlora_cli.families.standard import meta_denoiser
from tlora_cli.injection.changes import LowRankUpdate
from tlora_cli.methods import METHODS
from tlora_cli.recipe.models import Recipe

LOW_RANK = [name for name, method in METHODS.items() if method.low_rank]
WITH_BLOCKS = [name for name, method in METHODS.items() if method.divides]
CONVOLUTION = "down_blocks.1.resnets.0.conv1"

REAL = {
    ("sdxl", "attention"): (560, 955_187_200),
    ("sdxl", "linear"): (722, 2_207_744_000),
    ("sdxl", "all"): (788, 2_558_566_400),
    ("flux", "attention"): (247, 2_330_984_448),
    ("flux", "linear"): (494, 11_834_228_736),
    ("flux", "all"): (494, 11_834_228_736),
    ("flux2", "attention"): (55, 2_028_994_560),
    ("flux2", "linear"): (100, 3_680_501_760),
    ("flux2", "all"): (100, 3_680_501_760),
    ("sd3", "attention"): (220, 519_045_120),
    ("sd3", "linear"): (385, 2_222_456_832),
    ("sd3", "all"): (385, 2_222_456_832),
    ("z_image", "attention"): (136, 2_005_401_600),
    ("z_image", "linear"): (270, 6_142_033_920),
    ("z_image", "all"): (270, 6_142_033_920),
    ("qwen_image", "attention"): (420, 3_963_617_280),
    ("qwen_image", "linear"): (840, 20_384_317_440),
    ("qwen_image", "all"): (840, 20_384_317_440),
    ("krea2", "attention"): (140, 3_699_376_128),
    ("krea2", "linear"): (224, 12_155_092_992),
    ("krea2", "all"): (224, 12_155_092_992),
    ("qwen_image_21", "attention"): (128, 2_147_483_648),
    ("qwen_image_21", "linear"): (224, 6_979_321_856),
    ("qwen_image_21", "all"): (224, 6_979_321_856),
}
"""Layers, and numbers in their weights, of the standard bases; those of SDXL are as many as kohya's
sd-scripts report without and with conv_dim."""


DOCUMENT = Path(__file__).parents[2] / "docs" / "methods.md"
BLOCKS_OF = {"sdxl": r"\.attentions\.", "z_image": r"^(layers|\w+_refiner)\."}
RANKS = {"sdxl": 64, "flux": 32, "flux2": 32}


def reach(model: nn.Module, method: str, targets: str, min_rank: int | None = None) -> Adapter:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return attach(model, method, RANK, min_rank, blocks=BLOCKS, targets=targets)


@pytest.mark.parametrize(
    "family",
    [
        *("sdxl", "flux", "flux2", "z_image", "sd3"),
        *(
            pytest.param(name, marks=pytest.mark.full)
            for name in ("qwen_image", "krea2", "qwen_image_21")
        ),
    ],
)
def test_names_mean_these_layers_of_the_real_models(family: str) -> None:
    kind, denoiser = kinds.FAMILIES[family], meta_denoiser(family)
    assert list(kind.reaches) == list(REACHES)
    found = {name: kind.target_layers(denoiser, name) for name in REACHES}
    for name, layers in found.items():
        numbers = sum(layer.weight.numel() for layer in layers.values())
        assert (len(layers), numbers) == REAL[family, name]
    assert found["attention"].keys() == kind.target_layers(denoiser).keys()
    blocks = re.compile(BLOCKS_OF.get(family, r"transformer_blocks\."))
    modules = denoiser.named_modules()
    linear = {n for n, m in modules if isinstance(m, nn.Linear) and blocks.search(n)}
    assert found["linear"].keys() == linear
    others = {n.rpartition(".")[2] for n in found["all"].keys() - linear}
    convolutions = {"conv", "conv1", "conv2", "conv_shortcut", "time_emb_proj"}
    assert others == (convolutions if family == "sdxl" else set())
    if family not in RANKS:
        whole = sum(parameter.numel() for parameter in denoiser.parameters())
        cells = [
            f"{count} layers, {100 * numbers / whole:.0f}%"
            for count, numbers in (REAL[family, name] for name in ("attention", "linear"))
        ]
        name = f"`{family}` (medium)" if family == "sd3" else f"`{family}`"
        assert f"| {name} | {' | '.join(cells)} |\n" in DOCUMENT.read_text(encoding="utf-8")


def test_the_table_in_the_document_is_that_of_the_real_models() -> None:
    rows = {name: [name] for name in REACHES}
    for family, rank in RANKS.items():
        denoiser = meta_denoiser(family)
        whole = sum(parameter.numel() for parameter in denoiser.parameters())
        for name in REACHES:
            adapter = attach(denoiser, "lora", rank, targets=name)
            trained = sum(parameter.numel() for parameter in adapter.parameters())
            adapter.remove()
            layers, numbers = REAL[family, name]
            rows[name] += [f"{layers} layers", f"{100 * numbers / whole:.0f}%", f"{trained:,}"]
    for name, *cells in rows.values():
        assert f"| `{name}` | {' | '.join(cells)} |\n" in DOCUMENT.read_text(encoding="utf-8")


def test_attention_is_what_a_recipe_without_the_key_means() -> None:
    one, two = (attach(make_unet(), "tlora", RANK, **own) for own in ({}, {"targets": "attention"}))
    first, second = one.state_dict(), two.state_dict()
    assert list(first) == list(second)
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("method", [*LOW_RANK, "dreambooth"])
def test_training_starts_at_the_base_and_its_masks_are_those_of_the_formula(method: str) -> None:
    """In float64, W + B M_t A in the weights, for a batch of two timesteps."""
    model, inputs = make_unet(), unet_inputs(2)
    t = torch.tensor([950, 100])
    before = call(model, inputs, t, "sdxl")
    least = MIN_RANK if METHODS[method].masked else None
    adapter = reach(model, method, "all", least)
    assert CONVOLUTION in adapter.layers
    assert torch.equal(call(model, inputs, t, "sdxl"), before)
    stir(adapter, 0.1)
    found = call(model, inputs, t, "sdxl")
    assert not close(found, before, 1e-2)
    for row, rank in enumerate(adapter.call.active_rank.tolist() if least else [RANK, RANK]):
        double = in_double(rows(inputs, row))
        expected = call(merged(model, adapter, rank), double, t[row : row + 1], "sdxl")
        assert close(found[row : row + 1].double(), expected)


@pytest.mark.parametrize("method", LOW_RANK)
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_the_formula_in_float64(family: str, method: str) -> None:
    """Independent of the kernels: autograd through the merged weights W + B M_t A."""
    make, make_inputs, _ = FAMILIES[family]
    model, inputs, t = make(), make_inputs(1), torch.tensor([640])
    adapter = stir(reach(model, method, "all", MIN_RANK if METHODS[method].masked else None), 0.1)
    parameters = list(adapter.parameters())
    loss = (call(model, inputs, t, family) ** 2).mean()
    found = torch.autograd.grad(loss, parameters)
    rank = int(adapter.call.active_rank) if METHODS[method].masked else RANK

    bare = merged(model, adapter, 0)  # in float64, without hooks and without an update
    modules, doubles = dict(bare.named_modules()), copy.deepcopy(adapter.layers)
    weights: dict[str, Tensor] = {}
    for name, layer in doubles.items():
        down, up = layer.double().factors()
        keep = [c * layer.rank + k for c in range(layer.copies) for k in range(rank)]
        own = modules[name].weight.detach()
        weights[f"{name}.weight"] = own + (up[:, keep] @ down[keep]).view_as(own)
    when = t if FAMILIES[family][2] == 1.0 else t.double() / 1000
    given = {"timestep": when, **in_double(inputs), "return_dict": False}
    answer = torch.func.functional_call(bare, weights, (), given)[0]
    wanted = [p for layer in doubles.values() for p in layer.parameters()]
    expected = torch.autograd.grad((answer**2).mean(), wanted)
    assert all(
        (a - b).abs().max() < 1e-4 * max(b.abs().max(), 1e-6)
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("method", ["lora", "tlora"])
def test_checkpointed_blocks_and_folded_weights_give_the_same(method: str) -> None:
    model, inputs, t = make_unet(), unet_inputs(2), torch.tensor([950, 100])
    adapter = stir(reach(model, method, "all", MIN_RANK if method == "tlora" else None), 0.1)
    parameters = list(adapter.parameters())
    plain = torch.autograd.grad((call(model, inputs, t, "sdxl") ** 2).mean(), parameters)
    alone = call(model, rows(inputs, 0), t[:1], "sdxl").detach()
    with torch.no_grad(), adapter.frozen():
        assert adapter._folding is not None
        assert close(call(model, rows(inputs, 0), t[:1], "sdxl"), alone)
        assert adapter._updates.stacks[-1].groups[0].folded is not None
        call(model, inputs, t, "sdxl")  # two masks at once can't be folded for a masked method
    adapter.enable_gradient_checkpointing()
    again = torch.autograd.grad((call(model, inputs, t, "sdxl") ** 2).mean(), parameters)
    assert all(close(a, b) for a, b in zip(again, plain, strict=True))


def test_half_precision_and_autocast_stay_in_their_format() -> None:
    model, inputs, t = make_unet(), unet_inputs(1), torch.tensor([400])
    adapter = stir(reach(model, "tlora", "all"), 0.1)
    exact = call(model, inputs, t, "sdxl")
    with torch.autocast("cpu", torch.bfloat16):
        assert close(call(model, inputs, t, "sdxl").float(), exact, 0.1)
    small = {k: v.bfloat16() if isinstance(v, Tensor) else v for k, v in inputs.items()}
    small["added_cond_kwargs"] = {k: v.bfloat16() for k, v in inputs["added_cond_kwargs"].items()}
    answer = call(model.to(torch.bfloat16), small, t, "sdxl")
    assert answer.dtype is torch.bfloat16
    assert close(answer.float(), exact, 0.1)
    assert all(p.dtype is torch.float32 for p in adapter.parameters())


def test_a_convolution_starts_from_its_flattened_weights() -> None:
    model = make_unet()
    layer = reach(model, "pissa", "all").layers[CONVOLUTION]
    assert isinstance(layer, LowRankUpdate)
    weight = model.get_submodule(CONVOLUTION).weight.detach().flatten(1)
    u, s, vh = torch.linalg.svd(weight, full_matrices=False)
    best = u[:, :RANK] * s[:RANK] @ vh[:RANK]
    torch.testing.assert_close(layer.B @ layer.A, best, atol=1e-5, rtol=1e-4)
    ortho = attach(make_unet(), "tlora", RANK, targets="all").layers[CONVOLUTION]
    assert ortho.A0.shape == (RANK, weight.shape[1])
    torch.testing.assert_close(ortho.A0 @ ortho.A0.T, torch.eye(RANK), atol=1e-5, rtol=0)


def test_layers_narrower_than_the_rank_are_left_out_and_told() -> None:
    model, rank = make_unet(), 24
    layers = kinds.FAMILIES["sdxl"].target_layers(model, "all")
    widths = {name: min(layer.weight.flatten(1).shape) for name, layer in layers.items()}
    narrow = [name for name, width in widths.items() if width < rank]
    message = rf"^{len(narrow)} of the {len(widths)} layers are narrower than rank 24"
    with pytest.warns(UserWarning, match=message):
        adapter = attach(model, "tlora", rank, targets="all")
    assert 0 < len(narrow) < len(widths)
    assert list(adapter.layers) == [name for name in widths if name not in narrow]
    adapter.remove()
    for chosen in ("attention", r".*\.attn2\..*"):
        with pytest.raises(UserError, match="rank 25 is above the width 24 of layer"):
            attach(model, "tlora", 25, targets=chosen)
    with pytest.raises(UserError, match="choose a rank of at most 32"):
        attach(model, "tlora", 33, targets="all")


@pytest.mark.parametrize("method", WITH_BLOCKS)
def test_methods_that_turn_matrices_refuse_convolutions(method: str) -> None:
    with pytest.raises(UserError, match=f"{method} turns the two sides of a matrix") as caught:
        reach(make_unet(), method, "all")
    assert "adapter.targets: linear" in str(caught.value)
    model, inputs = make_transformer(), FAMILIES["flux"][1](1)
    before = call(model, inputs, 500, "flux")
    assert "transformer_blocks.0.ff.net.2" in reach(model, method, "all").layers
    assert close(call(model, inputs, 500, "flux"), before)


@pytest.mark.parametrize(
    ("method", "found"),
    [("svdiff", {"conv_in", "conv_norm_out"}), ("dreambooth_full", {"conv_in", "conv_norm_out"})],
)
def test_methods_of_all_modules_take_names_too(method: str, found: set[str]) -> None:
    assert found <= attach(make_unet(), method).layers.keys()
    adapter = attach(make_unet(), method, targets="attention")
    expected = kinds.FAMILIES["sdxl"].target_layers(make_unet())
    assert adapter.layers.keys() == expected.keys()


@pytest.mark.parametrize(
    "options", [{"groups": 2}, {"padding_mode": "circular", "padding": 1}], ids=str
)
def test_unusual_convolutions_are_refused(options: dict[str, Any]) -> None:
    model = make_unet()
    own = model.get_submodule(CONVOLUTION)
    model.down_blocks[1].resnets[0].conv1 = nn.Conv2d(
        own.in_channels, own.out_channels, 3, **options
    )
    with pytest.raises(UserError, match="is not defined for a convolution of"):
        reach(model, "lora", "all")


def test_a_family_that_says_no_further_names_knows_attention_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(type(kinds.FAMILIES["flux"]), "named_targets", {})
    assert attach(make_transformer(), "lora", RANK, targets="attention").layers
    for name in ("linear", "all"):
        with pytest.raises(UserError, match=f"does not say which layers `{name}` are") as caught:
            attach(make_transformer(), "lora", RANK, targets=name)
        assert "use attention, or a regular expression" in str(caught.value)
        values = {
            "family": "flux",
            "base": "some/base",
            "concept": {"images": "a.png", "class": "dog"},
            "adapter": {"targets": name},
            "output": {"dir": "run"},
        }
        with pytest.raises(ValidationError, match=f"flux does not say which layers `{name}` are"):
            Recipe.model_validate(values)


def test_an_expression_still_means_linear_layers() -> None:
    layers = kinds.FAMILIES["sdxl"].target_layers(make_unet(), r".*resnets.*")
    assert {name.rpartition(".")[2] for name in layers} == {"time_emb_proj"}
    with pytest.raises(UserError, match="no linear layer"):
        attach(make_unet(), "lora", RANK, targets=r".*\.conv1")


@pytest.mark.parametrize("method", LOW_RANK)
def test_the_plain_formula_that_is_compiled_has_the_kernels_gradients(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of A were counted twice where the factors needed no cast."""
    model, inputs, t = make_unet(), unet_inputs(2), torch.tensor([950, 100])
    adapter = stir(attach(model, method, RANK), 0.1)
    parameters = list(adapter.parameters())
    for given, when in ((inputs, t), (rows(inputs, 0), t[:1])):
        plain = torch.autograd.grad((call(model, given, when, "sdxl") ** 2).mean(), parameters)
        with monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            again = torch.autograd.grad((call(model, given, when, "sdxl") ** 2).mean(), parameters)
        assert all(close(a, b) for a, b in zip(again, plain, strict=True))
