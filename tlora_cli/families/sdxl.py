"""Stable Diffusion XL (Podell et al. 2023): a UNet with two CLIP text encoders.

Public facts of stabilityai/stable-diffusion-xl-base-1.0 (config.json of each part).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.facts import (
    KL_VAE,
    Argument,
    ComfyUI,
    Conditioning,
    Kohya,
    License,
    Sampler,
    TextEncoder,
)
from tlora_cli.families.sdxl_names import original_names
from tlora_cli.families.spec import Family
from tlora_cli.foundation.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from tlora_cli.formulas.objectives import Objective

BASE = "stabilityai/stable-diffusion-xl-base-1.0"
STEPS, GUIDANCE = 25, 5.0
"""Published settings of sampling (T-LoRA, section 5)."""


class StableDiffusionXL(Family):
    """A UNet with two CLIP text encoders and size conditioning."""

    name = "sdxl"
    title = "SDXL"
    denoiser_words = "an SDXL UNet2DConditionModel"
    denoiser = "unet"
    denoiser_class = "diffusers:UNet2DConditionModel"
    pipeline_class = "diffusers:StableDiffusionXLPipeline"
    text_encoders = (
        TextEncoder("text_encoder", "tokenizer", "clip_l"),
        TextEncoder("text_encoder_2", "tokenizer_2", "clip_g"),
    )
    text_tokens = 77
    text_tokenizer = "tokenizer"
    single_file_is_whole = True
    single_file_keys = ("model.diffusion_model.", "first_stage_model.", "conditioner.embedders.")
    targets = r".*\.attn[12]\.to_(q|k|v|out\.0)"
    # kohya's sd-scripts reach the same: with network_dim alone, and with conv_dim.
    named_targets: ClassVar = {
        "linear": r".*\.attentions\.\d+\..+",
        "all": r".*\.(attentions|resnets|downsamplers|upsamplers)\.\d+\..+",
    }
    shared_input = r"(.*\.attn1)\.to_[qkv]|(.*\.attn2)\.to_[kv]"
    text_keys_values = r".*\.attn2\.to_(k|v)"
    layer_prefixes = (
        "down_blocks",
        "up_blocks",
        "mid_block",
        "input_blocks",
        "output_blocks",
        "middle_block",
    )
    whole_model = (r"^(down_blocks|up_blocks|mid_block)\..*weight$", "a whole UNet")
    timestep_input = Argument("timestep", 1)
    latent_input = Argument("sample", 0)
    denoiser_settings: ClassVar = {
        "addition_embed_type": "text_time",
        **dict.fromkeys(("time_cond_proj_dim", "class_embed_type", "encoder_hid_dim_type")),
    }
    text_widths: ClassVar = {
        "cross_attention_dim": ("text_encoder.hidden_size", "text_encoder_2.hidden_size")
    }
    timestep_scale = 1.0
    noise_line = (1.533, 0.652)  # least squares over t = 0..999 of its published noise schedule
    standard_base = BASE
    standard_title = "SDXL"
    standard_gigabytes = 14
    standard_denoiser: ClassVar = {
        "sample_size": 128,
        "in_channels": 4,
        "out_channels": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "transformer_layers_per_block": (1, 2, 10),
        "attention_head_dim": (5, 10, 20),
        "cross_attention_dim": 2048,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    }
    standard_vae: ClassVar = {**KL_VAE, "latent_channels": 4, "scaling_factor": 0.13025}
    standard_scheduler: ClassVar = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
    }
    standard_text_parameters = 123_060_480 + 694_659_840  # CLIP L and G
    standard_text_waiting = 10 * 7_087_872 + 30 * 19_677_440
    resolutions = (1024, 768, 512)
    process = "diffusion"
    objectives = ("auto", "epsilon", "v_prediction")
    prediction_types = objectives[1:]
    samplers: ClassVar = {
        "default": Sampler("diffusers:EulerDiscreteScheduler"),
        "euler": Sampler("diffusers:EulerDiscreteScheduler"),
        "euler_ancestral": Sampler("diffusers:EulerAncestralDiscreteScheduler"),
        "ddim": Sampler("diffusers:DDIMScheduler"),
        "dpmpp_2m": Sampler(
            "diffusers:DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}
        ),
        "unipc": Sampler("diffusers:UniPCMultistepScheduler"),
        "heun": Sampler("diffusers:HeunDiscreteScheduler"),
    }
    guidance_doubles = True
    defaults: ClassVar = {"sampling": {"steps": STEPS, "guidance": GUIDANCE}}
    memory_presets: ClassVar = {
        "24gb": {},
        "16gb": {},
        "12gb": {"gradient_checkpointing": True},
        "8gb": {"gradient_checkpointing": True, "offload": True},
    }
    kohya = Kohya("networks.lora", "sdxl_base_v1-0")
    comfyui = ComfyUI(
        nodes={
            "base": ("CheckpointLoaderSimple", {"ckpt_name": "sd_xl_base_1.0.safetensors"}),
            "latent": ("EmptyLatentImage", {"width": 1024, "height": 1024, "batch_size": 1}),
        },
        model=("base", 0),
        clip=("base", 1),
        vae=("base", 2),
        latent=("latent", 0),
        sampling={
            "steps": STEPS, "cfg": GUIDANCE, "sampler_name": "euler", "scheduler": "normal",
        },
        # ComfyUI's percent p is timestep 999 (1 - p) of the noise schedule.
        start_percent=lambda t: min(max(1 - t / 999, 0.0), 1.0),
    )  # fmt: skip
    architecture = "stable-diffusion-xl-v1-base/lora"
    hub_tags = ("stable-diffusion-xl", "stable-diffusion-xl-diffusers")
    licenses: ClassVar = {BASE: License("openrail++")}

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
        import torch

        return {"time_ids": torch.tensor([[crop, crop, 0, 0, resolution, resolution]]).float()}

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds and text_embeds, and time_ids that are all 1024."""
        import torch

        from tlora_cli.families.shapes import random_like

        config, draw = denoiser.config, random_like(denoiser, batch)
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        embeds = draw(tokens, config.cross_attention_dim)
        sizes = torch.full((batch, 6), 1024.0, device=embeds.device)
        return {"prompt_embeds": embeds, "text_embeds": draw(pooled), "time_ids": sizes}

    def objective(self, scheduler_config: Mapping[str, Any], name: str) -> Objective:
        """Return the diffusion objective on the base model's own noise schedule."""
        from diffusers import DDPMScheduler

        from tlora_cli.formulas.objectives import Epsilon, VPrediction

        try:
            scheduler = DDPMScheduler.from_config(scheduler_config)
        except NotImplementedError as error:
            raise UserError(
                f"the base's noise schedule is not known: {error}",
                where="scheduler/scheduler_config.json",
                do="use a base with a noise schedule of diffusers' DDPMScheduler",
            ) from error
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

    def original_names(self, layer_names: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the names of Stability AI's UNet, which numbers its blocks in one row."""
        yield from original_names(layer_names)


SDXL = StableDiffusionXL()
