"""Adapter files whose ranks go by noise level: kept, refused by older programs, told where lost."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from adapter_files import RANK, UNET, convert, denoiser, random_adapter, write_bases
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tlora_cli import RankSchedule, UserError, load_adapter
from tlora_cli.families import FAMILIES
from tlora_cli.formats import read_adapter, tlora_header

SDXL = FAMILIES["sdxl"]
PUBLISHED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO = {**PUBLISHED, "rescale_betas_zero_snr": True}
ON_ZERO = RankSchedule(RANK, 1, axis=SDXL.noise_axis(ZERO))
EVERY = torch.arange(1000)
AXIS_KEYS = {"tlora.axis", "tlora.axis_scale", "tlora.axis_shift", "tlora.axis_signal"}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a file that was trained on a base of zero terminal SNR."""
    random_adapter(tmp_path / "dog.safetensors", "sdxl", schedule=ON_ZERO)
    return tmp_path / "dog.safetensors"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_bases(tmp_path)["sdxl"]


def header_of(file: Path) -> dict[str, str]:
    with safe_open(file, "pt") as opened:
        return dict(opened.metadata())


def test_the_file_says_the_axis_and_only_then(source: Path, tmp_path: Path) -> None:
    header = header_of(source)
    assert header.keys() >= AXIS_KEYS
    assert (header["tlora.format_version"], header["tlora.axis"]) == ("2", "logsnr")
    assert (header["tlora.axis_scale"], header["tlora.axis_shift"]) == ("1.533", "0.652")
    assert len(json.loads(header["tlora.axis_signal"])) == 1000
    assert read_adapter(source, []).schedule == ON_ZERO
    random_adapter(tmp_path / "plain.safetensors", "sdxl")
    plain = header_of(tmp_path / "plain.safetensors")
    assert plain["tlora.format_version"] == "1"
    assert not plain.keys() & AXIS_KEYS


def test_a_program_from_before_refuses_the_file(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knew one version and compared with it; here the second is taken away."""
    monkeypatch.setattr(tlora_header, "AXIS_VERSION", "none")
    with pytest.raises(UserError, match="format version '2'") as refused:
        read_adapter(source, [])
    assert "update tlora" in str(refused.value)


@pytest.mark.parametrize(
    "change",
    [
        {"tlora.axis": "sigma"},
        {"tlora.axis_scale": "0"},
        {"tlora.axis_shift": "nan"},
        {"tlora.axis_signal": "[1, 2]"},
        {"tlora.axis_signal": "[NaN, 0]"},
        {"tlora.axis_signal": '"abc"'},
        {"tlora.axis_signal": "7"},
        {"tlora.axis_signal": json.dumps([0] * 200_000)},
        {"tlora.axis_signal": None},
    ],
)
def test_a_damaged_axis_is_refused(change: dict[str, str | None], source: Path) -> None:
    header = {k: v for k, v in (header_of(source) | change).items() if v is not None}
    save_file(load_file(source), source, metadata=header)
    with pytest.raises(UserError, match="the adapter's header is damaged"):
        read_adapter(source, [])


# --- on a base ------------------------------------------------------------------------------------


def pipeline(scheduler: dict[str, object]) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        *(None,) * 5,
        unet=UNet2DConditionModel(**UNET),
        scheduler=EulerDiscreteScheduler(**scheduler),
    )


def test_a_base_with_another_noise_schedule_has_the_rank_of_its_noise(source: Path) -> None:
    on_plain = RankSchedule(RANK, 1, axis=SDXL.noise_axis(PUBLISHED))
    differ = on_plain.active_rank(EVERY) != ON_ZERO.active_rank(EVERY)
    assert differ.sum() > 100
    for model, expected in (
        (pipeline(PUBLISHED), on_plain),
        (pipeline(ZERO), ON_ZERO),
        (denoiser("sdxl"), ON_ZERO),  # it doesn't tell its noise schedule
    ):
        adapter = load_adapter(model, source)
        assert adapter.schedule == expected
        adapter.call.set_timestep(EVERY, torch.device("cpu"))
        assert torch.equal(adapter.call.active_rank, expected.active_rank(EVERY))
        adapter.remove()


def test_the_line_is_the_file_s(source: Path) -> None:
    """A later version of the program may fit its family another way."""
    header = header_of(source) | {"tlora.axis_scale": "2.0", "tlora.axis_shift": "0.1"}
    save_file(load_file(source), source, metadata=header)
    adapter = load_adapter(pipeline(PUBLISHED), source, min_rank=2)
    assert adapter.schedule is not None and adapter.schedule.axis is not None
    assert (adapter.schedule.axis.scale, adapter.schedule.axis.shift) == (2.0, 0.1)
    assert adapter.schedule.axis.signal == SDXL.noise_axis(PUBLISHED).signal
    assert adapter.schedule.min_rank == 2


# --- other formats --------------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", [PUBLISHED, ZERO], ids=["published", "zero terminal SNR"])
def test_comfyui_switches_at_the_noise_levels_of_the_base(
    scheduler: dict[str, object], base: Path, tmp_path: Path
) -> None:
    """ComfyUI's percent p is timestep 999 (1 - p); a LoRA acts from there down."""
    schedule = RankSchedule(RANK, 1, axis=SDXL.noise_axis(scheduler))
    file, folder = tmp_path / "cat.safetensors", tmp_path / "cat"
    random_adapter(file, "sdxl", schedule=schedule)
    said = convert(file, "--to", "comfyui", "--base", base, "--output", folder)
    assert "noise schedule of the adapter's base" in said
    nodes = json.loads((folder / "workflow.json").read_text())
    acting = torch.zeros(1000, dtype=torch.long)
    for node in nodes.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "CreateHookLoraModelOnly":
            first, last = map(int, re.findall(r"\d+", inputs["lora_name"]))
            start = 0.0
            for other in nodes.values():
                if other["class_type"] == "SetHookKeyframes" and (
                    nodes[other["inputs"]["hooks"][0]] is node
                ):
                    start = nodes[other["inputs"]["hook_kf"][0]]["inputs"]["start_percent"]
            highest = 999 * (1 - start) if start else 1000
            on = EVERY.le(highest)
            acting += (last - first + 1) * on
    assert torch.equal(acting, schedule.active_rank(EVERY))


def test_what_other_formats_lose_is_said(source: Path, base: Path, tmp_path: Path) -> None:
    def to(target: str, name: str) -> str:
        return convert(source, "--to", target, "--base", base, "--output", tmp_path / name)

    for target in ("kohya", "diffusers"):
        assert "the rank schedule is gone" in to(target, f"{target}.safetensors")
    assert "the rank schedule (linear by noise level) is gone" in to("lycoris", "l.safetensors")
    with pytest.raises(UserError, match="not the linear by noise level one over 1000"):
        to("published", "published")
    to("tlora", "again.safetensors")
    assert read_adapter(tmp_path / "again.safetensors", []).schedule == ON_ZERO
