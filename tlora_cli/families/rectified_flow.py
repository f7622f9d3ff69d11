"""Rectified flow, in which t / 1000 is the noise level itself; all such families share this."""

from __future__ import annotations

from collections.abc import Mapping
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


class RectifiedFlow(Family):
    """A family whose denoiser is given t / 1000, and answers with noise minus latent."""

    timestep_scale = 1000.0
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
        return (given * self.timestep_scale * 1e4).round() / 1e4

    def objective(self, scheduler_config: Mapping[str, Any], name: str) -> Objective:
        """Return flow matching."""
        from tlora_cli.formulas.objectives import Flow

        return Flow(scheduler_config.get("num_train_timesteps", 1000))
