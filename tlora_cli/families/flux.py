"""FLUX.1 (Black Forest Labs 2024): a rectified-flow transformer over packed latents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import (
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    UniPCMultistepScheduler,
)
from torch import Tensor, nn

from tlora_cli.families.spec import Conditioning, Family
from tlora_cli.formulas.objectives import Flow, Objective
from tlora_cli.foundation.errors import UserError

TEXT_TOKENS = 512
"""Length of the T5 text, as published; less if the base's tokenizer takes less."""

FLOW = {
    "use_flow_sigmas": True,
    "prediction_type": "flow_prediction",
    "use_dynamic_shifting": True,
}
"""What makes a diffusion solver one of rectified flow."""


def pack(latents: Tensor) -> Tensor:
    """Turn (B, C, h, w) into tokens (B, h/2 * w/2, 4C): each 2 x 2 patch is a token."""
    batch, channels, height, width = latents.shape
    patches = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return patches.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * 4)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Undo `pack` for latents of height x width."""
    batch, _, channels = tokens.shape
    patches = tokens.view(batch, height // 2, width // 2, channels // 4, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, height, width)


def image_ids(height: int, width: int, like: Tensor) -> Tensor:
    """Return the tokens' (0, row, column), (h/2 * w/2, 3)."""
    rows = torch.arange(height // 2, device=like.device).repeat_interleave(width // 2)
    columns = torch.arange(width // 2, device=like.device).repeat(height // 2)
    return torch.stack([torch.zeros_like(rows), rows, columns], dim=1).to(like.dtype)


class Flux(Family):
    """A transformer of double and single blocks, with CLIP and T5 text."""

    name = "flux"
    denoiser = "transformer"
    denoiser_class = FluxTransformer2DModel
    pipeline_class = FluxPipeline
    text_parts = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    targets = (
        r"transformer_blocks\.\d+\.attn\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj)"
        r"|single_transformer_blocks\.\d+\.attn\.to_(q|k|v)"
    )
    shared_input = r"(.*\.attn)\.(to)_[qkv]|(.*\.attn)\.(add)_[qkv]_proj"
    text_keys_values = None
    timestep_scale = 1000.0
    timestep_position = 3
    single_file_is_whole = False
    latent_patch = 2
    masked_defaults: ClassVar = {"adapter": {"min_rank": 1}}
    samplers: ClassVar = {
        "default": (FlowMatchEulerDiscreteScheduler, {}),
        "euler": (FlowMatchEulerDiscreteScheduler, {}),
        "dpmpp_2m": (DPMSolverMultistepScheduler, {**FLOW, "algorithm_type": "dpmsolver++"}),
        "unipc": (UniPCMultistepScheduler, FLOW),
    }

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return T5's prompt_embeds (B, 512, D) and CLIP's pooled_projections (B, P)."""
        length = min(TEXT_TOKENS, pipeline.tokenizer_2.model_max_length)
        embeds, pooled, _ = pipeline.encode_prompt(list(prompts), None, max_sequence_length=length)
        return {"prompt_embeds": embeds, "pooled_projections": pooled}

    def encode_negative(self, pipeline: Any, prompt: str) -> Conditioning | None:
        """Return None: FLUX.1-dev is guidance-distilled and takes no negative prompt."""
        if prompt:
            raise UserError(
                "FLUX.1-dev takes no negative prompt: guidance is distilled into it",
                where="sampling.negative_prompt",
                do="leave it empty",
            )
        return None

    def image_conditioning(self, crop: int, resolution: int) -> Conditioning:
        """Return nothing: FLUX is not told the picture's size."""
        return {}

    def objective(self, scheduler_config: dict[str, Any], name: str) -> Objective:
        """Return flow matching."""
        return Flow(scheduler_config.get("num_train_timesteps", 1000))

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the transformer on packed latents; it takes t / 1000."""
        height, width = noisy.shape[-2:]
        text = conditioning["prompt_embeds"]
        config: Any = denoiser.config
        guided = config.guidance_embeds
        tokens: Tensor = denoiser(
            hidden_states=pack(noisy),
            encoder_hidden_states=text,
            pooled_projections=conditioning["pooled_projections"],
            timestep=t.float() / self.timestep_scale,
            img_ids=image_ids(height, width, noisy),
            txt_ids=torch.zeros(text.shape[1], 3, device=text.device, dtype=text.dtype),
            guidance=torch.full_like(t, guidance, dtype=torch.float32) if guided else None,
            return_dict=False,
        )[0]
        return unpack(tokens, height, width)

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
        """Run FluxPipeline on embeddings; FLUX.1-dev is guidance-distilled, so no negative."""
        tokens = pipeline(
            prompt_embeds=positive["prompt_embeds"],
            pooled_prompt_embeds=positive["pooled_projections"],
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            max_sequence_length=TEXT_TOKENS,
            output_type="latent",
            return_dict=False,
        )[0]
        factor = pipeline.vae_scale_factor
        return unpack(tokens, 2 * (height // (2 * factor)), 2 * (width // (2 * factor)))
