"""The mathematics that a base's configuration files say: what is understood, and what is not.

Training follows the base's noise schedule, the scale of its latents, and what its denoiser is told.
A base that was made with another mathematics would train without an error, to something useless, so
what is not understood is refused, or said.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

from tlora_cli.families.spec import Family
from tlora_cli.families.vae_config import channels_of, factor_of
from tlora_cli.foundation.errors import UserError

Configs = Mapping[str, Mapping[str, Any]]
"""Part of a base, such as `vae` -> its configuration. Parts may be left out."""

OTHER = "use a base that was trained as the standard one, or another tool for this one"


class Process(NamedTuple):
    """The schedulers of diffusers that say how a base was trained, and their settings.

    Attributes:
        schedulers: names of the classes, without `Scheduler`.
        settings: fields that are followed, or concern the stock sampler alone.
        bound: field -> the value that it must have, if it is there.
    """

    schedulers: frozenset[str]
    settings: frozenset[str]
    bound: Mapping[str, Any]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_SAMPLING = """
    num_train_timesteps timestep_spacing steps_offset final_sigmas_type use_karras_sigmas
    use_exponential_sigmas use_beta_sigmas sigma_min sigma_max solver_order solver_type solver_p
    algorithm_type lower_order_final euler_at_final predict_x0 disable_corrector predictor_order
    corrector_order tau_func lambda_min_clipped use_lu_lambdas shift_terminal interpolation_type
    skip_prk_steps set_alpha_to_one original_inference_steps timestep_scaling noise_sampler_seed
    shift use_dynamic_shifting base_shift max_shift base_image_seq_len max_image_seq_len
    time_shift_type flow_shift clip_sample clip_sample_range thresholding
    dynamic_thresholding_ratio sample_max_value variance_type beta_start beta_end beta_schedule
    trained_betas rescale_betas_zero_snr
"""
PROCESSES: Mapping[str, Process] = {
    "diffusion": Process(
        _words("""
            DDPM DDPMParallel DDIM DDIMParallel PNDM LMSDiscrete EulerDiscrete
            EulerAncestralDiscrete HeunDiscrete KDPM2Discrete KDPM2AncestralDiscrete
            DPMSolverMultistep DPMSolverSinglestep DPMSolverSDE UniPCMultistep DEISMultistep
            SASolver LCM TCD
        """),
        _words(_SAMPLING + "prediction_type"),
        {"use_flow_sigmas": False, "timestep_type": "discrete"},
    ),
    "flow matching": Process(
        _words("""
            FlowMatchEulerDiscrete FlowMatchHeunDiscrete FlowMatchLCM DPMSolverMultistep
            UniPCMultistep
        """),
        _words(_SAMPLING + "stochastic_sampling scale_factors upscale_mode"),
        {"invert_sigmas": False, "use_flow_sigmas": True, "prediction_type": "flow_prediction"},
    ),
}
"""`Family.process` -> what is known of it (diffusers 0.42)."""


def check_configs(family: Family, configs: Configs) -> list[str]:
    """Return what should be said of a base by its configurations, in sentences.

    Args:
        family: of the base.
        configs: of its parts; what a part that is left out says is not looked at.

    Raises:
        UserError: if one says another mathematics than the program trains by.
    """
    notes: list[str] = []
    if "scheduler" in configs:
        notes += _check_scheduler(family, configs["scheduler"])
    if "vae" in configs:
        _check_vae(family, configs["vae"])
    if family.denoiser in configs:
        _check_denoiser(family, configs)
    return notes


def _check_scheduler(family: Family, config: Mapping[str, Any]) -> Iterator[str]:
    process, kind = PROCESSES.get(family.process), str(config.get("_class_name", ""))
    if process is None:  # a family from outside answers for its own
        return
    unknown = kind and kind.removesuffix("Scheduler") not in process.schedulers
    if unknown or config.get("sigma_data") is not None:
        edm = "with EDM's noise levels and scaled inputs, which tlora can't train"
        other = "in a way that tlora does not know"
        raise UserError(
            f"the base's scheduler is {kind}: it was trained "
            + (edm if "EDM" in kind or "sigma_data" in config else other),
            where="scheduler/scheduler_config.json",
            do=OTHER,
        )
    for field, value in config.items():
        if field in process.bound and value is not None and value != process.bound[field]:
            raise UserError(
                f"the base's scheduler says {field}: {value}, but tlora trains {family.title} by "
                f"{family.process} with {field}: {process.bound[field]}",
                where="scheduler/scheduler_config.json",
                do=OTHER,
            )
        if field == "variance_type" and str(value).startswith("learned"):
            raise UserError(
                f"the base's scheduler says {field}: {value}, so the denoiser also predicts "
                "variances, which tlora can't train",
                where="scheduler/scheduler_config.json",
                do=OTHER,
            )
        known = field in process.settings or field in process.bound or field.startswith("_")
        if not known and value not in (None, False):
            yield (
                f"the base's scheduler says {field}: {value}, which tlora does not know; it trains "
                "as if that were not there"
            )


def _check_vae(family: Family, config: Mapping[str, Any]) -> None:
    kind, wanted = config.get("_class_name"), family.vae_class.rpartition(":")[2]
    if kind is not None and kind != wanted:
        raise _vae_error(f"is a {kind}, not an {wanted}")
    scale = config.get("scaling_factor", 0.18215)
    if not _is_number(scale) or scale <= 0:
        raise _vae_error(f"says scaling_factor: {scale}, which is no positive number")
    mean, std = config.get("latents_mean"), config.get("latents_std")
    if (mean is None) != (std is None):
        raise _vae_error("says one of latents_mean and latents_std, but not the other")
    if mean is not None and std is not None:
        channels = channels_of(config)
        for name, values in (("latents_mean", mean), ("latents_std", std)):
            if not isinstance(values, list | tuple) or len(values) != channels:
                raise _vae_error(f"has {channels} latent channels, but not as many {name}")
            if not all(_is_number(one) for one in values):
                raise _vae_error(f"has {name} that are no numbers")
        if min(std) <= 0:
            raise _vae_error("has latents_std that are not above 0")
        if config.get("shift_factor"):
            raise _vae_error("says both shift_factor and latents_mean: which holds is not known")
    factor = factor_of(config)
    if factor > family.vae_factor:  # pictures' sides would not be multiples of it
        raise _vae_error(
            f"makes one latent place of {factor} x {factor} pixels; {family.title} has one for "
            f"{family.vae_factor} x {family.vae_factor}"
        )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _vae_error(what: str) -> UserError:
    return UserError(
        f"the base's VAE {what}",
        where="vae/config.json",
        do="use a base with the VAE of its family, or mend the file",
    )


def _check_denoiser(family: Family, configs: Configs) -> None:
    part = family.denoiser
    config = configs[part]
    where = f"{part}/config.json"
    for field, value in family.denoiser_settings.items():
        if (config.get(field) or None) != (value or None):  # false is as good as not there
            said = "is not said" if config.get(field) is None else f"is {config[field]}"
            raise UserError(
                f"the base's {part} is told other things than a {family.title} {part}: {field} "
                f"{said}, not {value or 'absent'}. It may be distilled for few "
                "steps, a refiner, or made for editing",
                where=where,
                do=f"use a text-to-image base, as {family.standard_base} is",
            )
    for field, texts in family.text_widths.items():
        found = [_said(configs, one) for one in texts]
        if None not in found and config.get(field) != sum(filter(None, found)):
            width = f"{config[field]} ({field})" if config.get(field) else f"unsaid ({field})"
            raise UserError(
                f"the base's {part} reads texts of width {width}, but its text encoders make "
                f"{sum(filter(None, found))}",
                where=where,
                do="check that all parts of the base are of one model",
            )
    if "vae" in configs:
        _check_channels(family, config, channels_of(configs["vae"]), where)


def _said(configs: Configs, path: str) -> Any:
    """Return what stands at a path such as `text_encoder.text_config.hidden_size`, or None."""
    value: Any = configs
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _check_channels(family: Family, config: Mapping[str, Any], latent: int, where: str) -> None:
    many = 1 << 20
    packed = many // family.latent_channels(
        SimpleNamespace(config=SimpleNamespace(in_channels=many))
    )
    wanted = latent * packed
    takes = config.get("in_channels", wanted)
    answers = family.answer_channels(config) or takes
    if takes == answers == wanted:
        return
    more = ", so it is also given a picture, for inpainting, control or editing"
    raise UserError(
        f"the base's {family.denoiser} takes {takes} channels and answers with {answers}, but the "
        f"latents of its VAE make {wanted}{more if takes > wanted else ''}",
        where=where,
        do=f"use the text-to-image base of the family, as {family.standard_base} is",
    )
