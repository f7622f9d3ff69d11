"""LyCORIS's T-LoRA files: the update is that of LyCORIS's own formula, written again here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import active, close, convert, denoiser, random_adapter, write_bases
from diffusers import FluxTransformer2DModel, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tlora_cli import RankSchedule, UserError, attach, load_adapter
from tlora_cli.formats import read_adapter
from tlora_cli.formats.kohya_names import known_names

RANK, LEAST, ALPHA = 4, 2, 3.0
SCHEDULE = RankSchedule(RANK, LEAST)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_bases(tmp_path_factory.mktemp("bases"))


def start_of(weight: Tensor, place: str = "principal") -> tuple[Tensor, Tensor, Tensor]:
    """Return base_q, base_lambda and base_p as LyCORIS computes them on its start."""
    u, s, vh = torch.linalg.svd(weight.float(), full_matrices=False)
    chosen = slice(0, RANK) if place == "principal" else slice(len(s) - RANK, len(s))
    return vh[chosen], s[chosen].unsqueeze(0), u[:, chosen]


class Trained:
    """A T-LoRA after training in LyCORIS: q, lambda and p near their start."""

    def __init__(self, weight: Tensor, chance: torch.Generator, place: str = "principal") -> None:
        if place == "random":
            weight = torch.randn(weight.shape, generator=chance) / RANK
            place = "last"
        self.start = [part.clone().contiguous() for part in start_of(weight, place)]
        self.now = [
            part + 0.3 * part.square().mean().sqrt() * torch.randn(part.shape, generator=chance)
            for part in self.start
        ]

    def tensors(self, name: str, with_start: bool) -> dict[str, Tensor]:
        q, scale, p = self.now
        found = {"q_layer.weight": q, "lambda_layer": scale, "p_layer.weight": p}
        if with_start:
            found |= dict(zip(("base_q", "base_lambda", "base_p"), self.start, strict=True))
        found["alpha"] = torch.tensor(ALPHA)
        return {f"{name}.{key}": tensor.contiguous() for key, tensor in found.items()}

    def update(self, t: float) -> Tensor:
        """P diag(lambda m) Q - P0 diag(lambda0 m) Q0, times alpha / rank."""
        mask = (torch.arange(RANK) < active(SCHEDULE, t)).double()
        q, scale, p, q0, scale0, p0 = (part.double() for part in (*self.now, *self.start))
        return ALPHA / RANK * (p @ ((scale * mask).T * q) - p0 @ ((scale0 * mask).T * q0))


def adapted(model: nn.Module, place: str = "principal") -> dict[str, Trained]:
    chance = torch.Generator().manual_seed(3)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and ".attn" in n}
    return {n: Trained(m.weight.detach(), chance, place) for n, m in list(layers.items())[:9]}


def write(
    file: Path,
    layers: dict[str, Trained],
    with_start: bool,
    prefix: str,
    header: dict[str, str] | None = None,
) -> None:
    tensors: dict[str, Tensor] = {}
    for name, one in layers.items():
        tensors |= one.tensors(prefix + name.replace(".", "_"), with_start)
    save_file(tensors, file, header)


def model_of(family: str, folder: Path) -> Any:
    if family == "sdxl":
        return UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    return FluxTransformer2DModel.from_pretrained(folder, subfolder="transformer")


def masked(file: Path, layer: str, t: float) -> Tensor:
    weights = read_adapter(file, [])
    assert weights.schedule == SCHEDULE
    down, up = (factor.double() for factor in weights.layers[layer])
    mask = (torch.arange(RANK) < active(SCHEDULE, t)).double().repeat(2)
    return up @ (mask[:, None] * down)


@pytest.mark.parametrize("with_start", [True, False])
@pytest.mark.parametrize(("family", "prefix"), [("sdxl", "lora_unet_"), ("flux", "lycoris_")])
def test_the_update_is_that_of_lycoris(
    family: str, prefix: str, with_start: bool, tiny_sdxl: Path, tiny_flux: Path, tmp_path: Path
) -> None:
    """With its start in the file, or the principal start of the base that is given."""
    folder = tiny_sdxl if family == "sdxl" else tiny_flux
    layers = adapted(model_of(family, folder))
    source, output = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    write(source, layers, with_start, prefix)
    options = ("--base", folder, "--output", output)
    with pytest.raises(UserError, match="does not say its rank schedule"):
        convert(source, *options)
    said = convert(source, *options, "--min-rank", str(LEAST))
    assert f"{family} tlora, rank 4, least rank 2, 9 layers" in said
    for name, one in layers.items():
        for t in (0.0, 600.0, 999.0):
            assert close(masked(output, name, t), one.update(t)), (name, t)
    adapter = load_adapter(model_of(family, folder), source, min_rank=LEAST)
    down, up = adapter.layers[name].factors()
    assert close((up @ down).double(), one.update(0.0))
    assert adapter.info.init == (None if with_start else "weights_principal")


SIMPLETUNER = {"algo": "tlora", "multiplier": 1.0, "linear_dim": RANK, "linear_alpha": 32,
               "apply_preset": {"target_module": ["Attention"]}}  # fmt: skip
LEFT = {"algo": "tlora", "apply_preset": {"target_module": ["Attention"]}}
"""Settings in the header of SimpleTuner's last file: the trainer took the numbers out of them."""


@pytest.mark.parametrize(
    ("in_header", "beside", "expected"),
    [
        (SIMPLETUNER, None, RankSchedule(RANK, 1)),
        (
            {**SIMPLETUNER, "tlora_min_rank": 3, "tlora_alpha": 0.5},
            LEFT,
            RankSchedule(RANK, 3, 0.5),
        ),
        (LEFT, {**SIMPLETUNER, "tlora_min_rank": 2}, RankSchedule(RANK, 2)),
        (None, {**SIMPLETUNER, "tlora_min_rank": "2"}, RankSchedule(RANK, 2)),
        (None, {**SIMPLETUNER, "tlora_min_rank": 9}, RankSchedule(RANK, RANK)),
        (LEFT, None, None),
        (LEFT, {**SIMPLETUNER, "algo": "lokr"}, None),
    ],
    ids=["default", "header", "beside", "text", "above", "last file alone", "another algorithm"],
)
def test_simpletuner_s_settings_say_the_schedule(
    in_header: Any, beside: Any, expected: RankSchedule | None, bases: dict[str, Path],
    tmp_path: Path,
) -> None:  # fmt: skip
    chance = torch.Generator().manual_seed(0)
    names = [n for n, _ in model_named_linears("sdxl") if n.endswith("to_q")]
    modules = dict(model_named_linears("sdxl"))
    layers = {name: Trained(modules[name].weight.detach(), chance) for name in names}
    source, output = tmp_path / "pytorch_lora_weights.safetensors", tmp_path / "ours.safetensors"
    header = None if in_header is None else {"lycoris_config": json.dumps(in_header)}
    write(source, layers, True, "lycoris_", header)
    if beside is not None:
        (tmp_path / "lycoris_config.json").write_text(json.dumps(beside))
    options = ("--base", bases["sdxl"], "--output", output)
    if expected is None:
        with pytest.raises(UserError, match="does not say its rank schedule"):
            convert(tmp_path, *options)
        return
    convert(tmp_path, *options)
    weights = read_adapter(output, [])
    assert weights.schedule is not None
    ranks = [weights.schedule.active_rank(t) for t in range(1001)]
    least, alpha = expected.min_rank, expected.alpha
    theirs = [int(((1000 - t) / 1000) ** alpha * (RANK - least)) + least for t in range(1001)]
    assert ranks == theirs
    assert weights.info.method == ("ortho_lora" if expected.min_rank == RANK else "tlora")
    given = tmp_path / "given.safetensors"
    convert(tmp_path, "--base", bases["sdxl"], "--output", given, "--min-rank", "2")
    assert read_adapter(given, []).schedule == RankSchedule(RANK, 2, alpha)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (json.dumps({**SIMPLETUNER, "linear_dim": 64}), "says rank 64, but the file has rank 4"),
        (json.dumps({**SIMPLETUNER, "tlora_alpha": 0}), "lycoris_config makes no schedule"),
        (json.dumps({**SIMPLETUNER, "linear_dim": None}), "lycoris_config makes no schedule"),
        ("{", "lycoris_config can't be read"),
        ("[1]", "lycoris_config holds no settings"),
    ],
)
def test_settings_that_contradict_the_file_are_refused(
    text: str, message: str, tmp_path: Path
) -> None:
    modules, chance = dict(model_named_linears("sdxl")), torch.Generator().manual_seed(0)
    name = next(n for n in modules if n.endswith("to_q"))
    layers = {name: Trained(modules[name].weight.detach(), chance)}
    source = tmp_path / "a.safetensors"
    write(source, layers, True, "lycoris_", {"lycoris_config": text})
    with pytest.raises(UserError, match=message) as refused:
        read_adapter(source, modules)
    assert refused.value.where == str(source)
    assert "--min-rank" in refused.value.do


@pytest.mark.parametrize(
    ("schedule", "stated"),
    [
        (RankSchedule(RANK, 3, 0.7), {"linear_dim": 4, "tlora_min_rank": 3, "tlora_alpha": 0.7}),
        (RankSchedule(RANK, RANK), {"linear_dim": 4, "tlora_min_rank": 4, "tlora_alpha": 1.0}),
        (RankSchedule(RANK, 2, kind="cosine"), None),
        (RankSchedule(RANK, 2, num_train_timesteps=500), None),
    ],
    ids=["linear", "full", "cosine", "500 timesteps"],
)
def test_our_file_says_its_schedule_the_same_way(
    schedule: RankSchedule, stated: Any, bases: dict[str, Path], tmp_path: Path
) -> None:
    source, there = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    random_adapter(source, "sdxl", "tlora", schedule)
    convert(source, "--to", "lycoris", "--base", bases["sdxl"], "--output", there)
    with safe_open(there, "pt") as file:
        found = json.loads(file.metadata().get("lycoris_config", "null"))
    if stated is None:
        assert found is None
    else:
        assert found == {"algo": "tlora", "multiplier": 1.0, "linear_alpha": 4, **stated}


def test_fused_layers_of_flux_are_split_by_their_rows(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    names = [n for n, m in model_named_linears("flux")]
    aliases = {
        alias: known_names(names)[alias]
        for alias in ("double_blocks_0_txt_attn_qkv", "single_blocks_1_linear1")
    }
    chance = torch.Generator().manual_seed(0)
    rows = {"double_blocks_0_txt_attn_qkv": 96, "single_blocks_1_linear1": 224}
    layers = {alias: Trained(torch.randn(rows[alias], 32), chance) for alias in aliases}
    source, output = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    write(source, layers, True, "lora_unet_")
    convert(source, "--base", bases["flux"], "--output", output, "--min-rank", str(LEAST))
    for alias, members in aliases.items():
        assert len(members) > 2
        found = torch.cat([masked(output, member, 600.0) for member in members])
        assert close(found, layers[alias].update(600.0))


def model_named_linears(family: str) -> list[tuple[str, nn.Linear]]:
    return [(n, m) for n, m in denoiser(family).named_modules() if isinstance(m, nn.Linear)]


def test_what_lycoris_computes_itself_fits_our_principal_start(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    """Without base_*, LyCORIS takes the principal start of the base: it means the same then."""
    model = model_of("sdxl", tiny_sdxl)
    adapter = attach(model, "tlora", RANK, LEAST, init="weights_principal")
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=chance))
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "theirs.safetensors"
    adapter.save(ours)
    said = convert(ours, "--to", "lycoris", "--base", tiny_sdxl, "--output", theirs)
    assert "base_*" not in said
    tensors, modules = load_file(theirs), dict(model.named_modules())
    for name, layer in adapter.layers.items():
        stem = f"lycoris_{name.replace('.', '_')}"
        q, scale, p = (
            tensors[f"{stem}.{part}"].double()
            for part in ("q_layer.weight", "lambda_layer", "p_layer.weight")
        )
        q0, scale0, p0 = (part.double() for part in start_of(modules[name].weight.detach()))
        down, up = (factor.detach().double() for factor in layer.factors())
        assert close(p @ (scale.T * q) - p0 @ (scale0.T * q0), up @ down), name
        assert float(tensors[f"{stem}.alpha"]) == RANK


@pytest.mark.parametrize("place", ["random", "last"])
def test_a_start_that_is_not_principal_is_refused(
    place: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    source, output = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    write(source, adapted(model_of("sdxl", tiny_sdxl), place), False, "lycoris_")
    options = ("--output", output, "--min-rank", str(LEAST))
    with pytest.raises(UserError, match="did not start at the principal part of this base"):
        convert(source, "--base", tiny_sdxl, *options)
    assert not output.exists()


def test_without_its_start_and_its_base_it_is_refused(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    chance = torch.Generator().manual_seed(0)
    layers = {n: Trained(m.weight.detach(), chance) for n, m in model_named_linears("sdxl")
              if n.endswith("to_q")}  # fmt: skip
    source, new = tmp_path / "theirs.safetensors", tmp_path / "ours.safetensors"
    write(source, layers, False, "lycoris_")
    names = [n for n, _ in model_named_linears("sdxl")]
    with pytest.raises(UserError) as refused:
        read_adapter(source, names)
    assert refused.value.what.startswith(
        "the file is a LyCORIS T-LoRA adapter without its start (base_*)"
    )
    assert "pass --base" in refused.value.do
    name = f"lycoris_{next(iter(layers)).replace('.', '_')}"
    whole = next(iter(layers.values())).tensors(name, True)
    for change, message in (
        ({f"{name}.q_layer.weight": None}, "lacks its q_layer"),
        ({f"{name}.base_p": None}, "lacks its base_p"),
        ({f"{name}.lambda_layer": torch.ones(1, 3)}, "do not fit each other"),
        ({f"{name}.q_layer.weight": torch.ones(4, 32, 1, 1)}, "adapts a convolution"),
        ({f"{name}.gain": torch.ones(1)}, "holds a tensor that is not known"),
        ({f"{name}.w_norm": torch.ones(1)}, "an adapter with full weight differences (LyCORIS)"),
        (
            {f"lycoris_x.{k.split('.', 1)[1]}": v.clone() for k, v in whole.items()},
            "the model lacks: x",
        ),
    ):
        changed: dict[str, Any] = whole | change
        save_file({key: v for key, v in changed.items() if v is not None}, source)
        with pytest.raises(UserError) as refused:
            convert(source, "--base", bases["sdxl"], "--family", "sdxl", "--output", new,
                    "--min-rank", "2")  # fmt: skip
        assert message in refused.value.what
    write(source, layers, True, "lycoris_")
    with pytest.raises(UserError, match="the adapter is for sdxl, not flux"):
        convert(source, "--family", "flux", "--output", new, "--min-rank", "2")
