"""Bases whose files say another mathematics: followed where it is known, else refused or said."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionXLPipeline,
)
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from validations import recipe, told

from tlora_cli import UserError
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.mathematics import PROCESSES, check_configs
from tlora_cli.families.vae import decode, encode_image
from tlora_cli.tools.preflight.base_files import look_at_base

SCHEDULER = "scheduler/scheduler_config.json"
MEAN, STD = [-1.6, 1.9, -1.4, 2.5], [8.5, 5.9, 6.5, 5.2]


def changed(tiny: Path, target: Path, file: str, **values: Any) -> Path:
    """Return a copy of a base with other values in one of its files."""
    shutil.copytree(tiny, target)
    found = json.loads((target / file).read_text())
    (target / file).write_text(json.dumps({**found, **values}))
    return target


REFUSED = {
    "EDM": ("tiny_sdxl", SCHEDULER, {"_class_name": "EDMEulerScheduler", "sigma_data": 0.5}, "EDM"),
    "EDM by its field": ("tiny_sdxl", SCHEDULER, {"sigma_data": 0.5}, "EDM"),
    "cosine": (
        "tiny_sdxl",
        SCHEDULER,
        {"_class_name": "CosineDPMSolverMultistepScheduler"},
        "does not know",
    ),
    "log sigma for t": ("tiny_sdxl", SCHEDULER, {"timestep_type": "continuous"}, "timestep_type"),
    "flow on a UNet": ("tiny_sdxl", SCHEDULER, {"use_flow_sigmas": True}, "use_flow_sigmas"),
    "learned variance": ("tiny_sdxl", SCHEDULER, {"variance_type": "learned_range"}, "variances"),
    "diffusion on FLUX": ("tiny_flux", SCHEDULER, {"_class_name": "DDIMScheduler"}, "DDIM"),
    "time turned round": ("tiny_flux", SCHEDULER, {"invert_sigmas": True}, "invert_sigmas"),
    "epsilon on FLUX": ("tiny_flux", SCHEDULER, {"prediction_type": "epsilon"}, "prediction_type"),
    "mean alone": ("tiny_sdxl", "vae/config.json", {"latents_mean": MEAN}, "but not the other"),
    "mean of three": (
        "tiny_sdxl",
        "vae/config.json",
        {"latents_mean": MEAN[:3], "latents_std": STD},
        "not as many latents_mean",
    ),
    "std of zero": (
        "tiny_sdxl",
        "vae/config.json",
        {"latents_mean": MEAN, "latents_std": [0, 1, 1, 1]},
        "not above 0",
    ),
    "mean and shift": (
        "tiny_sdxl",
        "vae/config.json",
        {"latents_mean": MEAN, "latents_std": STD, "shift_factor": 0.1},
        "both shift_factor",
    ),
    "scale": ("tiny_flux", "vae/config.json", {"scaling_factor": 0}, "no positive number"),
    "other VAE": ("tiny_flux", "vae/config.json", {"_class_name": "AutoencoderTiny"}, "Tiny"),
    "told the guidance": ("tiny_sdxl", "unet/config.json", {"time_cond_proj_dim": 8}, "distilled"),
    "told an image": (
        "tiny_sdxl",
        "unet/config.json",
        {"addition_embed_type": "text_image"},
        "addition_embed_type is text_image, not text_time",
    ),
    "other texts": ("tiny_flux", "transformer/config.json", {"joint_attention_dim": 9}, "width 9"),
    "answers twice": ("tiny_sdxl", "unet/config.json", {"out_channels": 8}, "answers with 8"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_another_mathematics_is_refused(
    case: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fixture, file, values, words = REFUSED[case]
    tiny = request.getfixturevalue(fixture)
    base = changed(tiny, tmp_path / "base", file, **values)
    family = FAMILIES[fixture.removeprefix("tiny_")]
    with pytest.raises(UserError) as refused:
        load_pipeline(family, Base(str(base)), parts=())
    assert words in refused.value.what
    assert refused.value.where == file
    assert refused.value.do
    found = list(look_at_base(recipe(tiny, tmp_path, base={"model": str(base)})))
    assert [one.level for one in found if one.level != "warning"] == ["problem"]


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_an_unknown_setting_is_said(name: str, request: pytest.FixtureRequest) -> None:
    tiny = request.getfixturevalue(f"tiny_{name}")
    config = json.loads((tiny / SCHEDULER).read_text())
    assert check_configs(FAMILIES[name], {"scheduler": config}) == []
    [note] = check_configs(FAMILIES[name], {"scheduler": {**config, "rope_scale": 2, "x": None}})
    assert note.startswith("the base's scheduler says rope_scale: 2, which tlora does not know")


def test_an_unknown_setting_is_said_when_training_and_ahead(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    base = changed(tiny_sdxl, tmp_path / "base", SCHEDULER, rope_scale=2)
    with pytest.warns(UserWarning, match="rope_scale: 2"):
        load_pipeline(FAMILIES["sdxl"], Base(str(base)), parts=())
    found = list(look_at_base(recipe(tiny_sdxl, tmp_path, base={"model": str(base)})))
    assert "rope_scale: 2" in told(found, "warning")
    assert not told(found, "problem")


@pytest.mark.parametrize("process", PROCESSES)
def test_every_known_scheduler_is_one_of_diffusers(process: str) -> None:
    import diffusers

    family = next(one for one in FAMILIES.values() if one.process == process)
    for name in PROCESSES[process].schedulers - {"DPMSolverSDE"}:  # needs torchsde
        config = dict(getattr(diffusers, f"{name}Scheduler")().config)
        if process == "flow matching" and not name.startswith("FlowMatch"):
            config |= {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
        assert check_configs(family, {"scheduler": config}) == [], name


def test_mean_and_deviation_of_latents(tiny_sdxl: Path) -> None:
    """There as the formula says, and back as the stock pipeline decodes its own latents."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    pipeline.vae.register_to_config(latents_mean=MEAN, latents_std=STD, scaling_factor=0.5)
    pixels = torch.rand(3, 64, 64) * 2 - 1
    posterior = pipeline.vae.encode(pixels[None]).latent_dist
    mean, std = (torch.tensor(v).view(4, 1, 1) for v in (MEAN, STD))
    encoded = encode_image(pipeline.vae, pixels)
    torch.testing.assert_close(encoded.mean, (posterior.mean[0] - mean) * 0.5 / std)
    torch.testing.assert_close(encoded.std, posterior.std[0] * 0.5 / std)
    draw = {"width": 64, "height": 64, "num_inference_steps": 2, "return_dict": False}

    def drawn(output: str) -> Any:
        seed = torch.Generator().manual_seed(0)
        return pipeline("a", **draw, generator=seed, output_type=output)[0]

    [ours], [stock] = decode(pipeline.vae, drawn("latent")), drawn("pil")
    assert np.abs(np.asarray(ours).astype(int) - np.asarray(stock)).max() <= 1


def test_one_number_for_all_latents_is_as_before(tiny_flux: Path) -> None:
    vae = AutoencoderKL.from_pretrained(tiny_flux, subfolder="vae")
    pixels = torch.rand(3, 32, 32)
    mean = vae.encode(pixels[None]).latent_dist.mean[0]
    shift, scale = vae.config.shift_factor, vae.config.scaling_factor
    assert torch.equal(encode_image(vae, pixels).mean, (mean - shift) * scale)


def test_a_base_that_ends_in_noise_alone(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Zero terminal SNR (Lin et al. 2023, algorithm 1): trained so, drawn by samplers that can."""
    base = changed(tiny_sdxl, tmp_path / "b", SCHEDULER, rescale_betas_zero_snr=True)
    family = FAMILIES["sdxl"]
    config = dict(load_pipeline(family, Base(str(base)), parts=()).scheduler.config)
    alphas = torch.tensor(family.objective(config, "v_prediction").signal_shares())
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    root = torch.cumprod(1 - betas, 0).sqrt()
    wanted = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    torch.testing.assert_close(alphas.double(), wanted, rtol=1e-3, atol=1e-6)
    for name in family.samplers:
        if name == "heun":
            with pytest.raises(UserError, match="sampler heun can't draw"):
                family.sampler(name, config)
        else:
            assert family.sampler(name, config).config.rescale_betas_zero_snr


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_a_fixed_shift_of_flux_holds_for_every_sampler(shift: float) -> None:
    """FLUX.1-schnell's scheduler: s' = shift s / (1 + (shift - 1) s), at any size of picture."""
    config = FlowMatchEulerDiscreteScheduler(shift=shift, use_dynamic_shifting=False).config
    flux = FAMILIES["flux"]
    for name in ("dpmpp_2m", "unipc"):
        solver = flux.sampler(name, dict(config))
        moving = solver.config
        mu = calculate_shift(
            1024,
            moving["base_image_seq_len"],
            moving["max_image_seq_len"],
            moving["base_shift"],
            moving["max_shift"],
        )
        solver.set_timesteps(8, mu=mu)
        fixed = {"flow_shift": 1.0, "use_dynamic_shifting": False}
        plain = type(solver).from_config(solver.config, **fixed)
        plain.set_timesteps(8)
        s = plain.sigmas[:-1].double()
        found = solver.sigmas[:-1].double()
        torch.testing.assert_close(found, shift * s / (1 + (shift - 1) * s), rtol=1e-3, atol=0)


def test_a_moving_shift_of_flux_is_the_bases_own() -> None:
    config = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=2.0).config
    flux = FAMILIES["flux"]
    for name in flux.samplers:
        assert flux.sampler(name, dict(config)).config["max_shift"] == 2.0


def test_a_noise_schedule_that_is_not_known(tiny_sdxl: Path) -> None:
    with pytest.raises(UserError, match="noise schedule is not known"):
        FAMILIES["sdxl"].objective({"beta_schedule": "mystery"}, "auto")


@pytest.mark.parametrize("name", ["sdxl", "flux"])
def test_the_tiny_and_built_in_bases_say_nothing(name: str, request: pytest.FixtureRequest) -> None:
    tiny = str(request.getfixturevalue(f"tiny_{name}"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for base in (tiny, f"toy-{name}"):
            load_pipeline(FAMILIES[name], Base(base), parts=("vae", "denoiser"))
