"""The words of a single-file base beside its weights: what it is, and how it was trained.

Model sites' files say by marks and headers what a folder says by configurations. The marks are
those that ComfyUI reads (`v_pred`, `ztsnr`, `edm_mean`, `edm_vpred.sigma_max`), the headers those
of the model specification (`modelspec.prediction_type`; ComfyUI writes `modelspec.predict_key`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from tlora_cli.families.spec import Family
from tlora_cli.foundation.errors import UserError

DENOISER = "model.diffusion_model."
OTHER_PARTS = (
    "first_stage_model.",
    "vae.",
    "conditioner.",
    "cond_stage_model.",
    "text_encoders.",
    "model_ema.",
)
"""Beginnings of names: of the denoiser in a file with several parts, and of the other parts."""

KINDS = {
    r"lora|hada_w|lokr_w": "a LoRA",
    r"^(control_model|controlnet|input_hint|control_)": "a ControlNet",
    r"^conditioner\.embedders\.0\.model\.": "the SDXL refiner",
    r"single_stream_modulation\.": "FLUX.2",
    r"distilled_guidance_layer\.": "Chroma",
    r"joint_blocks\.": "Stable Diffusion 3",
    r"^cond_stage_model\.": "Stable Diffusion 1 or 2",
    r"double_blocks\.\d+\.img_attn": "FLUX.1",
    r"^conditioner\.embedders\.1\.model\.": "SDXL",
}
"""Pattern of a name -> what a file with it is."""

UNUSED = (
    "model_ema.",
    "betas",
    "alphas_cumprod",
    "sqrt_",
    "log_one_minus_",
    "posterior_",
    "denoiser.",
    "logvar",
)
"""Beginnings of what training programs leave in a file, and nobody reads."""

LEAVES = re.compile(
    r".*(\.|^)(weight|bias|scale|in_proj_weight|in_proj_bias|text_projection|logit_scale"
    r"|positional_embedding|position_ids|class_embedding|(mod|modulation)\.lin)"
)
"""Names of tensors that models of these families have."""

_EDM = ("edm_mean", "edm_std", "edm_vpred.sigma_max", "edm_vpred.sigma_min")
MARKS = (*_EDM, "v_pred", "ztsnr")
"""Names of tensors that say how the model was trained, as ComfyUI knows them."""
_PREDICTIONS = {"v": "v_prediction", "v_prediction": "v_prediction", "epsilon": "epsilon"}


@dataclass(frozen=True)
class SingleFile:
    """A single file whose header is known.

    Attributes:
        path: of the file.
        header: its text fields.
        shapes: name -> shape of each tensor.
        formats: name -> number format of each tensor, as safetensors calls it: F16, BF16, F8_E4M3.
    """

    path: Path
    header: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    formats: Mapping[str, str]

    @property
    def denoiser(self) -> list[str]:
        """Names of the denoiser's tensors, scales of them included."""
        inside = [name for name in self.shapes if name.startswith(DENOISER)]
        return inside or [name for name in self.shapes if not name.startswith(OTHER_PARTS)]


def look_into(path: Path) -> SingleFile:
    """Return a file's names, shapes and header; no tensor is read.

    Raises:
        UserError: if it is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in list(file.keys())}
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
            formats = {name: one.get_dtype() for name, one in slices.items()}
            return SingleFile(path, dict(file.metadata() or {}), shapes, formats)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"the base {path.name} can't be loaded: it is damaged ({error})",
            where="base.model",
            do="download it again",
        ) from error


def kind_of(names: Collection[str]) -> str:
    """Return what a file with tensors of these names is, or nothing."""
    for pattern, words in KINDS.items():
        if any(re.search(pattern, name) for name in names):
            return words
    return ""


def scheduler_settings(family: Family, file: SingleFile) -> dict[str, Any]:
    """Return what the file says of its scheduler, over the settings of the folder beside it.

    With zero terminal SNR sampling has to begin at the last timestep, which is pure noise (Lin et
    al. 2023, section 3.3): spacing is trailing.

    Raises:
        UserError: if it says a training that is not known.
    """
    if not family.prediction_types:
        return {}
    if marks := [name for name in _EDM if name in file.shapes]:
        raise UserError(
            f"the file {file.path.name} has the mark {marks[0]}: it was trained with EDM's noise "
            "levels and scaled inputs, which tlora can't train",
            where="base.model",
            do="use a base that was trained as the standard one, or another tool for this one",
        )
    if "v_pred" in file.shapes:
        settings: dict[str, Any] = {"prediction_type": "v_prediction"}
        if "ztsnr" in file.shapes:
            settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
        return settings
    for field in ("modelspec.prediction_type", "modelspec.predict_key"):
        said = file.header.get(field)
        if said is None:
            continue
        if said not in _PREDICTIONS:
            raise UserError(
                f"the file {file.path.name} says {field}: {said}, which tlora can't train",
                where="base.model",
                do="use a base that predicts epsilon or v",
            )
        if _PREDICTIONS[said] != "epsilon":
            return {"prediction_type": _PREDICTIONS[said]}
    return {}


def notes_of(family: Family, file: SingleFile) -> list[str]:
    """Return what should be said of the file, in sentences."""
    notes = []
    settings = scheduler_settings(family, file)
    if settings:
        ends = " up to pure noise (zero terminal SNR)" if len(settings) > 1 else ""
        notes.append(
            f"{file.path.name} says that it predicts {settings['prediction_type']}{ends}; it is "
            "trained and drawn so"
        )
    elif family.prediction_types and "ztsnr" in file.shapes:
        notes.append(f"{file.path.name} has the mark ztsnr without v_pred; it is not followed")
    inside = set(file.denoiser)
    unknown = sorted(
        name
        for name in file.shapes
        if name not in inside and name not in MARKS and not name.startswith(UNUSED)
        if not (name.startswith(OTHER_PARTS) and LEAVES.fullmatch(name))
    )
    if unknown:
        notes.append(f"{file.path.name} also holds {unknown[0]}, which tlora does not know")
    if not family.single_file_is_whole:
        others = {name.partition(".")[0] for name in file.shapes if name.startswith(OTHER_PARTS)}
        if others:
            notes.append(
                f"{file.path.name} also holds {' and '.join(sorted(others))}, which are not used: "
                "those of base.config are"
            )
    return notes
