"""Rectified flow, in which t / 1000 is the noise level itself; all such families share this."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.facts import Sampler
from tlora_cli.families.spec import Family

if TYPE_CHECKING:
    from torch import Tensor

    from tlora_cli.formulas.objectives import Objective

FLOW = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "use_dynamic_shifting": True,
}
"""Settings that make a diffusion solver one of rectified flow."""
SHIFT = ("base_shift", "max_shift", "base_image_seq_len", "max_image_seq_len")
"""Settings of the shift that moves with the size of the picture; of a line's ends."""


def as_published_for_flux(steps: int, guidance: float) -> dict[str, Any]:
    """Return a recipe's defaults: of training what T-LoRA published for FLUX.1.

    Args:
        steps: of drawing.
        guidance: of drawing.
    """
    return {
        "adapter": {"rank": 32},
        "train": {"optimizer": {"name": "prodigy"}, "max_grad_norm": 1.0},
        "sampling": {"steps": steps, "guidance": guidance},
    }


MASKED_AS_FOR_FLUX: Mapping[str, Any] = {"adapter": {"min_rank": 1}, "train": {"steps": 500}}
"""The same of methods whose rank follows a schedule."""


class RectifiedFlow(Family):
    """A family whose denoiser is given t / 1000, and answers with noise minus latent."""

    timestep_scale: ClassVar[float | None] = 1000.0
    # T-LoRA's paper: adapters of FLUX have full rank by themselves, so it takes the schedule alone.
    default_method = "vanilla_tlora"
    process = "flow matching"
    objectives = ("auto", "flow")
    samplers: ClassVar = {
        "default": Sampler("diffusers:FlowMatchEulerDiscreteScheduler"),
        "euler": Sampler("diffusers:FlowMatchEulerDiscreteScheduler"),
        "dpmpp_2m": Sampler(
            "diffusers:DPMSolverMultistepScheduler", {**FLOW, "algorithm_type": "dpmsolver++"}
        ),
        "unipc": Sampler("diffusers:UniPCMultistepScheduler", FLOW),
    }

    def timesteps(self, given: Tensor) -> Tensor:
        """Return 1000 times the timesteps that the denoiser is given.

        The caller divided by 1000 in fp32; its rounding is undone, so that 300 is not 300.000012,
        beyond a step of the rank. A bf16 pipeline rounds t before, and the model is told that t.
        """
        return (given * (self.timestep_scale or 1.0) * 1e4).round() / 1e4

    def objective(self, scheduler_config: Mapping[str, Any], name: str) -> Objective:
        """Return flow matching."""
        from tlora_cli.formulas.objectives import Flow

        return Flow(scheduler_config.get("num_train_timesteps", 1000))

    def sampler(self, name: str, config: Mapping[str, Any]) -> Any:
        """Return the scheduler with the ends of the base's moving shift; a fixed one is both."""
        ends = {key: config[key] for key in SHIFT if key in config}
        if not config.get("use_dynamic_shifting", True):
            ends |= dict.fromkeys(SHIFT[:2], math.log(config.get("shift", 1.0)))
        made = super().sampler(name, config)
        made.register_to_config(**ends)
        return made


GIVEN_LEVELS = {k: v for k, v in RectifiedFlow.samplers.items() if k != "dpmpp_2m"}
"""Samplers of pipelines that give the scheduler its noise levels; DPM-Solver takes none."""


def turbo_note(base: str, whole: str, drawing: str) -> Iterator[str]:
    """Yield what is said before a base is trained on whose name says that it is distilled.

    Args:
        base: its name.
        whole: the base to train on.
        drawing: options that the distilled one is drawn with.
    """
    if "turbo" in base.rpartition("/")[2].lower():
        yield (
            "is distilled to draw in a few steps, and training works against that: what is "
            f"trained on it may draw worse with each step. Train on its base, as {whole} is, and "
            f"draw with `tlora sample --base` of the distilled one, with `{drawing}`"
        )
