"""Stable Diffusion XL (Podell et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

from tlora_cli.families.spec import Conditioning, Family
from tlora_cli.formulas.objectives import Epsilon, Objective, VPrediction
from tlora_cli.foundation.errors import UserError


class SDXL(Family):
    """A UNet with two CLIP text encoders and size conditioning."""

    name = "sdxl"
    denoiser = "unet"
    denoiser_class = UNet2DConditionModel
    pipeline_class = StableDiffusionXLPipeline
    text_parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    targets = r".*\.attn[12]\.to_(q|k|v|out\.0)"
    shared_input = r"(.*\.attn1)\.to_[qkv]|(.*\.attn2)\.to_[kv]"
    text_keys_values = r".*\.attn2\.to_(k|v)"
    timestep_scale = 1.0
    timestep_position = 1
    single_file_is_whole = True
    latent_patch = 1
    samplers: ClassVar = {
        "default": (EulerDiscreteScheduler, {}),
        "euler": (EulerDiscreteScheduler, {}),
        "euler_ancestral": (EulerAncestralDiscreteScheduler, {}),
        "ddim": (DDIMScheduler, {}),
        "dpmpp_2m": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++"}),
        "unipc": (UniPCMultistepScheduler, {}),
        "heun": (HeunDiscreteScheduler, {}),
    }

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return prompt_embeds (B, 77, D) and the second encoder's pooled text_embeds (B, P)."""
        embeds, _, pooled, _ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False
        )
        return {"prompt_embeds": embeds, "text_embeds": pooled}

    def encode_negative(self, pipeline: Any, prompt: str) -> Conditioning | None:
        """Return the prompt's embeddings; None for the zeros that SDXL takes for an empty one."""
        if not prompt and pipeline.config.force_zeros_for_empty_prompt:
            return None
        return self.encode_prompts(pipeline, [prompt])

    def image_conditioning(self, crop: int, resolution: int) -> Conditioning:
        """Return time_ids: original size, crop corner, target size (SDXL, section 2.2)."""
        return {"time_ids": torch.tensor([[crop, crop, 0, 0, resolution, resolution]]).float()}

    def objective(self, scheduler_config: dict[str, Any], name: str) -> Objective:
        """Return the diffusion objective on the base model's own noise schedule."""
        scheduler = DDPMScheduler.from_config(scheduler_config)
        if name == "auto":
            name = scheduler.config.prediction_type
        kinds = {"epsilon": Epsilon, "v_prediction": VPrediction}
        if name not in kinds:
            raise UserError(
                f"the base's scheduler says that it predicts {name!r}, which tlora can't train",
                where="train.objective",
                do=f"set it to {' or '.join(kinds)} if the base predicts that in truth",
            )
        return kinds[name](scheduler.alphas_cumprod)

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the UNet; `guidance` does not concern it."""
        answer: Tensor = denoiser(
            noisy,
            t,
            encoder_hidden_states=conditioning["prompt_embeds"],
            added_cond_kwargs={
                "text_embeds": conditioning["text_embeds"],
                "time_ids": conditioning["time_ids"],
            },
            return_dict=False,
        )[0]
        return answer

    def sample(
        self,
        pipeline: Any,
        positive: Conditioning,
        negative: Conditioning | None,
        *,
        width: int,
        height: int,
        steps: int,
        guidance: float,
        generators: list[torch.Generator],
    ) -> Tensor:
        """Run StableDiffusionXLPipeline on embeddings."""
        without = negative or {}
        latents: Tensor = pipeline(
            prompt_embeds=positive["prompt_embeds"],
            pooled_prompt_embeds=positive["text_embeds"],
            negative_prompt_embeds=without.get("prompt_embeds"),
            negative_pooled_prompt_embeds=without.get("text_embeds"),
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="latent",
            return_dict=False,
        )[0]
        return latents
