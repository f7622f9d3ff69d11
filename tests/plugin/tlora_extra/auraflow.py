"""AuraFlow (fal.ai 2024): a rectified-flow transformer with the text of one T5 encoder.

Public facts of fal/AuraFlow (config.json of each part).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.facts import KL_VAE, Argument, Conditioning, License, Sampler, TextEncoder
from tlora_cli.families.spec import Family

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tlora_cli.formulas.objectives import Objective


class AuraFlow(Family):
    """Joint and single transformer blocks over latents that the model cuts into patches itself."""

    name = "auraflow"
    title = "AuraFlow"
    denoiser_words = "an AuraFlowTransformer2DModel"
    denoiser = "transformer"
    denoiser_class = "diffusers:AuraFlowTransformer2DModel"
    pipeline_class = "diffusers:AuraFlowPipeline"
    text_encoders = (TextEncoder("text_encoder", "tokenizer"),)
    text_tokens = 256
    text_tokenizer = "tokenizer"
    single_file_is_whole = False
    single_file_keys = ("double_layers.", "single_layers.")
    targets = r".*_transformer_blocks\.\d+\.attn\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj)"
    shared_input = r"(.*\.attn)\.(to)_[qkv]|(.*\.attn)\.(add)_[qkv]_proj"
    layer_prefixes = ("joint_transformer_blocks",)
    whole_model = (r"^joint_transformer_blocks\.\d+\.", "a whole transformer")
    latent_patch = 2
    timestep_input = Argument("timestep", 2)
    latent_input = Argument("hidden_states", 0)
    timestep_scale = 1000.0
    standard_base = "fal/AuraFlow"
    standard_title = "AuraFlow"
    standard_gigabytes = 17
    standard_denoiser: ClassVar = {"pos_embed_max_size": 4096}
    standard_vae: ClassVar = {**KL_VAE, "latent_channels": 4, "scaling_factor": 0.13025}
    standard_text_parameters = 1_223_527_424
    resolutions = (1024, 768, 512)
    process = "flow matching"
    objectives = ("auto", "flow")
    samplers: ClassVar = {
        "default": Sampler("diffusers:FlowMatchEulerDiscreteScheduler"),
        "euler": Sampler("diffusers:FlowMatchEulerDiscreteScheduler"),
    }
    guidance_doubles = True
    defaults: ClassVar = {"sampling": {"steps": 25, "guidance": 3.5}}
    licenses: ClassVar = {"fal/AuraFlow": License("apache-2.0")}

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return prompt_embeds (B, L, D) and the mask of their tokens (B, L * D)."""
        embeds, mask, *_ = pipeline.encode_prompt(
            list(prompts), do_classifier_free_guidance=False, max_sequence_length=self.text_tokens
        )
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds; the transformer is given no mask."""
        from tlora_cli.families.shapes import random_like

        draw = random_like(denoiser, batch)
        return {"prompt_embeds": draw(tokens, denoiser.config.joint_attention_dim)}

    def timesteps(self, given: Tensor) -> Tensor:
        """Return 1000 times the timesteps that the transformer is given, rounding undone."""
        return (given * self.timestep_scale * 1e4).round() / 1e4

    def objective(self, scheduler_config: Mapping[str, Any], name: str) -> Objective:
        """Return flow matching."""
        from tlora_cli.formulas.objectives import Flow

        return Flow(scheduler_config.get("num_train_timesteps", 1000))

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the transformer; it takes t / 1000, and no guidance."""
        answer: Tensor = denoiser(
            noisy,
            encoder_hidden_states=conditioning["prompt_embeds"],
            timestep=t.float() / self.timestep_scale,
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
        """Run AuraFlowPipeline on embeddings."""
        latents: Tensor = pipeline(
            **positive,
            **{f"negative_{key}": value for key, value in (negative or {}).items()},
            width=width,
            height=height,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=generators,
            output_type="latent",
            return_dict=False,
        )[0]
        return latents


AURAFLOW = AuraFlow()
