"""Our own file and the published checkpoints: what is read is what was written or recorded."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from diffusers import FluxPipeline, StableDiffusionXLPipeline
from reference_runs import REFERENCE, RUNS, Run, difference
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tlora_cli import Adapter, RankSchedule, UserError, attach, load_adapter
from tlora_cli.formats import AdapterInfo, read_adapter, read_origin
from tlora_cli.formats.tlora_file import write
from tlora_cli.formats.weights import AdapterWeights
from tlora_cli.methods import METHODS

WEIGHTS = {"sdxl": "pytorch_lora_weights.safetensors", "flux": "lora.pt"}
SDXL_HPARAMS: dict[str, Any] = {
    "trainer_class": "sdxl_tlora",
    "trainer_type": "ortho_lora",
    "lora_rank": 8,
    "min_rank": 4,
    "alpha_rank_scale": 1.0,
    "sig_type": "last",
    "seed": 0,
    "placeholder_token": "sks",
    "class_name": "dog",
    "pretrained_model_name_or_path": "stabilityai/stable-diffusion-xl-base-1.0",
    "revision": None,
    "argv": ["python", "train.py"],
}
FLUX_HPARAMS: dict[str, Any] = {"rank": 8, "min_rank": 4, "tlora": True, "placeholder_token": "sks"}


def base_run(name: str) -> Run:
    """Return a recorded run whose denoiser carries no adapter."""
    run = Run(name)
    run.adapter.remove()
    return run


def lay_out(folder: Path, name: str, hparams: dict[str, Any] | str | None) -> Path:
    """Lay a published checkpoint out as its trainer does and return the weights file."""
    file = folder / "checkpoint-20" / WEIGHTS[name.split("_")[0]]
    file.parent.mkdir(parents=True)
    shutil.copyfile(REFERENCE / name / file.name, file)
    if hparams is not None:
        text = hparams if isinstance(hparams, str) else yaml.dump(hparams)
        (folder / "logs").mkdir()
        (folder / "logs" / "hparams.yml").write_text(text)
    return file


def stirred(model: torch.nn.Module, method: str, **options: Any) -> Adapter:
    """Return an adapter whose factors are all random."""
    adapter = attach(model, method, **options)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return adapter


# --- published checkpoints ------------------------------------------------------------------------


@pytest.mark.parametrize("name", RUNS)
def test_published_checkpoints_give_the_recorded_outputs(name: str, tmp_path: Path) -> None:
    run = base_run(name)
    file = lay_out(tmp_path, name, None)
    with pytest.raises(UserError) as refused:
        load_adapter(run.denoiser, file)
    assert refused.value.what == (
        "the file is a T-LoRA checkpoint but does not say its rank schedule"
    )
    load_adapter(run.denoiser, file, min_rank=run.case["min_rank"])
    assert difference(run.probe(), run.data["probe_outputs"]) < 1e-4


@pytest.mark.parametrize("name", RUNS)
def test_hparams_say_the_schedule(name: str, tmp_path: Path) -> None:
    run = base_run(name)
    hparams = dict(FLUX_HPARAMS if name == "flux_lora" else SDXL_HPARAMS)
    hparams["min_rank"] = run.case["min_rank"]
    file = lay_out(tmp_path, name, hparams)
    adapter = load_adapter(run.denoiser, file.parent)
    assert adapter.schedule == RankSchedule(8, run.case["min_rank"])
    assert adapter.info.method == ("tlora" if "ortho" in name else "vanilla_tlora")
    assert (adapter.info.placeholder, adapter.info.train_steps) == ("sks", 20)
    assert difference(run.probe(), run.data["probe_outputs"]) < 1e-4
    assert read_origin(file) == (name.split("_")[0], adapter.info)


def test_hparams_fill_in_where_the_checkpoint_comes_from(tmp_path: Path) -> None:
    file = lay_out(tmp_path, "sdxl_ortho_lora_last", SDXL_HPARAMS)
    assert read_origin(file) == (
        "sdxl",
        AdapterInfo(
            method="tlora",
            init="random_last",
            seed=0,
            base_model="stabilityai/stable-diffusion-xl-base-1.0",
            placeholder="sks",
            class_name="dog",
            train_steps=20,
        ),
    )


@pytest.mark.parametrize(
    ("name", "change", "method"),
    [
        ("sdxl_lora_none", {"trainer_class": "sdxl_lora"}, "lora"),
        ("sdxl_ortho_lora_last", {"trainer_class": "sdxl_lora"}, "ortho_lora"),
        ("flux_lora", {"tlora": False}, "lora"),
    ],
)
def test_published_runs_without_a_mask(
    name: str, change: dict[str, Any], method: str, tmp_path: Path
) -> None:
    hparams = (FLUX_HPARAMS if name == "flux_lora" else SDXL_HPARAMS) | change
    adapter = load_adapter(base_run(name).denoiser, lay_out(tmp_path, name, hparams))
    assert adapter.schedule == RankSchedule(8, 8, kind="constant")
    assert adapter.info.method == method


def test_published_alpha_is_read(tmp_path: Path) -> None:
    hparams = SDXL_HPARAMS | {"alpha_rank_scale": 2.0}
    file = lay_out(tmp_path, "sdxl_lora_none", hparams)
    assert read_adapter(file, []).schedule == RankSchedule(8, 4, 2.0)


@pytest.mark.parametrize(
    ("hparams", "message"),
    [
        (
            "a: [1, 2\nb: c",
            "hparams.yml can't be read: not valid YAML, column 2: expected ',' or ']', but got ':'",
        ),
        ("!!python/object/apply:os.system ['false']", "hparams.yml can't be read: "),
        ("- a\n- b", "hparams.yml holds no settings"),
        (
            {k: v for k, v in SDXL_HPARAMS.items() if k != "trainer_class"},
            "hparams.yml does not say 'trainer_class' as the published sdxl code does",
        ),
        (
            SDXL_HPARAMS | {"lora_rank": 64},
            "hparams.yml says rank 64, but the checkpoint has rank 8",
        ),
        (
            SDXL_HPARAMS | {"min_rank": 9},
            "hparams.yml makes no schedule: min_rank 9 must lie in 1..rank (8)",
        ),
    ],
)
def test_bad_hparams_are_refused(hparams: Any, message: str, tmp_path: Path) -> None:
    file = lay_out(tmp_path, "sdxl_lora_none", hparams)
    with pytest.raises(UserError) as refused:
        read_adapter(file, [])
    assert refused.value.what.startswith(message)
    assert refused.value.where.startswith(str(tmp_path / "logs" / "hparams.yml"))


def test_layers_that_flux_never_calls_are_left_out() -> None:
    weights = read_adapter(REFERENCE / "flux_lora" / "lora.pt", [])
    single = sorted(name for name in weights.layers if name.startswith("single"))
    assert single == [
        f"single_transformer_blocks.{n}.attn.to_{p}" for n in (0, 1) for p in ("k", "q", "v")
    ]
    double = {name.split(".attn.")[1] for name in weights.layers if not name.startswith("single")}
    assert double == {f"to_{p}" for p in ("q", "k", "v", "out.0")} | {
        f"add_{p}_proj" for p in ("q", "k", "v")
    }


@pytest.mark.parametrize("part", ["base_p.weight", "lambda_layer"])
def test_a_published_checkpoint_that_lacks_a_part_is_refused(part: str, tmp_path: Path) -> None:
    tensors = load_file(REFERENCE / "sdxl_ortho_lora_last" / WEIGHTS["sdxl"])
    layer = "mid_block.attentions.0.transformer_blocks.0.attn1"
    del tensors[f"{layer}.processor.to_q_lora.{part}"]
    save_file(tensors, tmp_path / "a.safetensors")
    with pytest.raises(UserError) as refused:
        read_adapter(tmp_path / "a.safetensors", [])
    assert refused.value.what == f"layer {layer}.to_q lacks its {part.removesuffix('.weight')}"


# --- our file -------------------------------------------------------------------------------------

SCHEDULES = [
    RankSchedule(4, 2),
    RankSchedule(4, 1, 2.5, num_train_timesteps=500),
    RankSchedule(4, 1, kind="cosine"),
    RankSchedule(4, 1, kind="step", points=[(0, 4), (300.5, 2), (600, 0)]),
    RankSchedule(4, 1, kind="piecewise", points=[(0, 4), (999, 1)]),
    RankSchedule(4, 2, kind="reversed"),
    RankSchedule(4, 2, kind="random", seed=7),
    RankSchedule(4, 4, kind="constant"),
]


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: str(s.kind))
@pytest.mark.parametrize("name", ["sdxl_lora_none", "flux_lora"])
def test_our_file_comes_back_bit_for_bit(name: str, schedule: RankSchedule, tmp_path: Path) -> None:
    run = base_run(name)
    info = AdapterInfo(
        base_model="ö/模型",
        placeholder="sks",
        class_name="123",
        train_steps=0,
        sampling={"steps": 25, "guidance": 5.0, "negative_prompt": ""},
        recipe={"adapter": {"rank": 4}},
    )
    method = "lora" if schedule.kind == "constant" else "tlora"
    masked = None if method == "lora" else schedule
    adapter = stirred(run.denoiser, method, rank=4, schedule=masked, info=info)
    adapter.save(tmp_path / "adapter.safetensors")
    adapter.remove()
    loaded = load_adapter(run.denoiser, tmp_path)
    assert loaded.schedule == schedule
    assert loaded.info == adapter.info
    before, after = adapter.weights(), loaded.weights()
    assert list(before.layers) == list(after.layers)
    for layer, pair in before.layers.items():
        assert all(torch.equal(a, b) for a, b in zip(pair, after.layers[layer], strict=True))
    assert read_origin(tmp_path) == (run.family.name, adapter.info)


def test_layers_of_several_ranks_are_written_at_the_largest(tmp_path: Path) -> None:
    layers = {
        "mid_block.a": (torch.randn(3, 5), torch.randn(4, 3)),
        "mid_block.b": (torch.randn(1, 5), torch.randn(4, 1)),
    }
    schedule = RankSchedule(3, 3, kind="constant")
    weights = AdapterWeights(layers, 1, schedule, "sdxl", AdapterInfo())
    write(tmp_path / "a.safetensors", weights, timestep_scale=1.0)
    read = read_adapter(tmp_path / "a.safetensors", [])
    for name, (down, up) in layers.items():
        assert read.layers[name][0].shape[0] == 3
        torch.testing.assert_close(read.layers[name][1] @ read.layers[name][0], up @ down)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"tlora.format_version": "9"},
            "the adapter file has format version '9'; this tlora reads 1",
        ),
        ({"tlora.rank": "x"}, "the adapter's header is damaged (ValueError: "),
        ({"tlora.family": "sd9"}, "the adapter's header is damaged (ValueError: family is sd9)"),
        ({"tlora.min_rank": "5"}, "the adapter's header is damaged (ValueError: min_rank 5"),
        ({"tlora.copies": "0"}, "the adapter's tensors do not fit its header (rank 4, copies 0)"),
        ({"tlora.seed": '"a"'}, 'the adapter\'s header is damaged (ValueError: seed is "a")'),
        (
            {"tlora.sampling": "[1]"},
            "the adapter's header is damaged (ValueError: sampling is [1])",
        ),
        ({"tlora.sampling": "{"}, "the adapter's header is damaged (JSONDecodeError: "),
        (
            {"tlora.rank": "8"},
            "the adapter's tensors do not fit its header (rank 8, copies 2)",
        ),
    ],
)
def test_a_damaged_header_is_refused(change: dict[str, str], message: str, tmp_path: Path) -> None:
    file = tmp_path / "adapter.safetensors"
    stirred(base_run("sdxl_lora_none").denoiser, "tlora", rank=4).save(file)
    with safe_open(file, "pt") as opened:
        header = opened.metadata() | change
    save_file(load_file(file), file, metadata=header)
    with pytest.raises(UserError) as refused:
        read_adapter(file, [])
    assert refused.value.what.startswith(message)
    assert refused.value.where == str(file)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].size == "rank"])
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_stock_diffusers_loads_our_file_at_full_rank(
    family: str, method: str, tiny_sdxl: Path, tiny_flux: Path, tmp_path: Path
) -> None:
    pipeline_class, folder = {
        "sdxl": (StableDiffusionXLPipeline, tiny_sdxl),
        "flux": (FluxPipeline, tiny_flux),
    }[family]
    pipeline = pipeline_class.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    part = "unet" if family == "sdxl" else "transformer"
    adapter = stirred(getattr(pipeline, part), method, rank=4)
    adapter.save(tmp_path / "adapter.safetensors")
    adapter.remove()

    def draw() -> torch.Tensor:
        return pipeline(
            "a photo of a sks dog",
            width=64,
            height=64,
            num_inference_steps=3,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        ).images

    bare = draw()
    ours = load_adapter(pipeline, tmp_path, min_rank=4)
    expected = draw()
    ours.remove()
    assert torch.equal(draw(), bare)
    pipeline.load_lora_weights(str(tmp_path), weight_name="adapter.safetensors")
    assert difference(bare, expected) > 1e-2
    assert difference(draw(), expected) < 1e-5
