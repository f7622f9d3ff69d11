"""Stable Diffusion 3 and 3.5 (Stability AI 2024): rectified flow over streams of picture and text.

Public facts of diffusers 0.42 (`StableDiffusion3Pipeline`) and of stabilityai's bases (config.json
of each part).

**What is adapted.** In each block the layers that FLUX.1's adapters have: queries, keys and values
of picture and text, and the picture's output. Thirteen of the medium model's blocks also have
`attn2`, attention of the picture to itself, which is adapted as a whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.comfyui_parts import SIZE, flow_sampling, flow_times
from tlora_cli.families.facts import (
    KL_VAE,
    Argument,
    ComfyUI,
    Conditioning,
    License,
    Published,
    TextEncoder,
)
from tlora_cli.families.rectified_flow import (
    MASKED_AS_FOR_FLUX,
    RectifiedFlow,
    as_published_for_flux,
    turbo_note,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MAKER = "stabilityai"
BASE = f"{MAKER}/stable-diffusion-3.5-medium"
LARGE = f"{MAKER}/stable-diffusion-3.5-large"
TURBO = f"{LARGE}-turbo"
STEPS, GUIDANCE = 28, 7.0  # defaults of the pipeline (diffusers 0.42)
COMFYUI_SHIFT = 3.0
"""ComfyUI's default shift of Stable Diffusion 3."""
CLIP_TOKENS = 77
TEXT_PARAMETERS = 123_650_304 + 694_659_840 + 4_762_310_656  # CLIP L and G, T5-XXL's encoder
TEXT_WAITING = 10 * 7_087_872 + 30 * 19_677_440 + 22 * 192_946_176 - 2048  # but for two blocks each
TURNS = {"gradient_checkpointing": True, "offload": True}
BIG = Published(
    {
        "num_layers": 38,
        "num_attention_heads": 38,
        "caption_projection_dim": 2432,
        "pos_embed_max_size": 192,
        "dual_attention_layers": (),
    },
    text_parameters=TEXT_PARAMETERS,
    text_waiting=TEXT_WAITING,
)
IN_BLOCK = {
    "x_block_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block_attn_proj": ("attn.to_out.0",),
    "x_block_attn2_qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block_attn2_proj": ("attn2.to_out.0",),
    "x_block_mlp_fc1": ("ff.net.0.proj",),
    "x_block_mlp_fc2": ("ff.net.2",),
    "x_block_adaLN_modulation_1": ("norm1.linear",),
    "context_block_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block_attn_proj": ("attn.to_add_out",),
    "context_block_mlp_fc1": ("ff_context.net.0.proj",),
    "context_block_mlp_fc2": ("ff_context.net.2",),
}
"""Name in a block of the original model -> layers. The text's modulation is left out: that of the
last block has its halves the other way round."""


def community(base: str) -> License:
    """Return Stability AI's license, which stands beside each base."""
    link = f"https://huggingface.co/{base}/blob/main/LICENSE.md"
    return License("other", "stabilityai-ai-community", link)


def _filled(text: Tensor, denoiser: Any) -> Tensor:
    """Return a text with T5's part; where it was made without, zeros, as the pipeline has them.

    Args:
        text: (B, L, D), or of both CLIPs alone (B, 77, narrower).
        denoiser: says the width D.
    """
    from torch.nn import functional

    missing = denoiser.config.joint_attention_dim - text.shape[-1]
    tokens = StableDiffusion3.text_tokens
    return functional.pad(text, (0, missing, 0, tokens)) if missing else text


class StableDiffusion3(RectifiedFlow):
    """A transformer of joint blocks, with the text of two CLIPs and of T5."""

    name = "sd3"
    title = "Stable Diffusion 3"
    denoiser_words = "an SD3Transformer2DModel"
    denoiser = "transformer"
    denoiser_class = "diffusers:SD3Transformer2DModel"
    pipeline_class = "diffusers:StableDiffusion3Pipeline"
    text_encoders = (
        TextEncoder("text_encoder", "tokenizer", "clip_l"),
        TextEncoder("text_encoder_2", "tokenizer_2", "clip_g"),
        TextEncoder("text_encoder_3", "tokenizer_3", "t5xxl"),
    )
    zeros_without = ("text_encoder_3",)
    text_tokens = 256  # of T5, as the pipeline has it
    text_tokenizer = "tokenizer_3"
    single_file_is_whole = False
    single_file_keys = ("joint_blocks.",)
    targets = r"transformer_blocks\.\d+\.(attn2?\.to_(q|k|v|out\.0)|attn\.add_(q|k|v)_proj)"
    named_targets: ClassVar = dict.fromkeys(("linear", "all"), r"transformer_blocks\..+")
    shared_input = r"(.*\.attn2?)\.(to)_[qkv]|(.*\.attn)\.(add)_[qkv]_proj"
    layer_prefixes = ("joint_blocks", "transformer_blocks")
    # The blocks of FLUX and Qwen-Image are called alike; of those here the largest has 38.
    foreign_layers = (
        r"single_|attn1[._]|to_gate|(img|txt)_(mod|mlp)[._]|[._]ff(_context)?[._]linear_"
        r"|transformer_blocks[._](3[89]|[4-9]\d)[._]"
    )
    whole_model = (r"^joint_blocks\.\d+\.", "a whole transformer")
    latent_patch = 2
    timestep_input = Argument("timestep", 3)
    latent_input = Argument("hidden_states", 0)
    text_widths: ClassVar = {
        "joint_attention_dim": ("text_encoder_3.d_model",),
        "pooled_projection_dim": ("text_encoder.projection_dim", "text_encoder_2.projection_dim"),
    }
    timestep_scale = 1.0
    standard_base = BASE
    standard_title = "Stable Diffusion 3.5 medium"
    standard_gigabytes = 16
    standard_denoiser: ClassVar = {
        "num_layers": 24,
        "num_attention_heads": 24,
        "caption_projection_dim": 1536,
        "pos_embed_max_size": 384,
        "dual_attention_layers": tuple(range(13)),
        "qk_norm": "rms_norm",
    }
    standard_vae: ClassVar = {
        **KL_VAE,
        "latent_channels": 16,
        "scaling_factor": 1.5305,
        "shift_factor": 0.0609,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    standard_text_parameters = TEXT_PARAMETERS
    standard_text_waiting = TEXT_WAITING
    other_bases: ClassVar = {LARGE: BIG, TURBO: BIG}
    resolutions = (1024, 768, 512)
    guidance_doubles = True
    # Of training: what T-LoRA published for FLUX.1; for Stable Diffusion 3 nothing is.
    defaults: ClassVar = as_published_for_flux(STEPS, GUIDANCE)
    masked_defaults: ClassVar = MASKED_AS_FOR_FLUX
    # The text encoders alone take 12.3 GB, so that on smaller cards blocks take turns.
    memory_presets: ClassVar = {"24gb": {}, "16gb": {}, "12gb": TURNS, "8gb": TURNS}
    comfyui = ComfyUI(
        nodes={
            "base": ("CheckpointLoaderSimple", {"ckpt_name": "sd3.5_medium.safetensors"}),
            "clip": ("TripleCLIPLoader", {
                "clip_name1": "clip_l.safetensors", "clip_name2": "clip_g.safetensors",
                "clip_name3": "t5xxl_fp16.safetensors",
            }),
            "latent": ("EmptySD3LatentImage", SIZE),
        },
        model=("base", 0),
        clip=("clip", 0),
        vae=("base", 2),
        latent=("latent", 0),
        sampling=flow_sampling(STEPS, GUIDANCE),
        peft_names=True,
        **flow_times(COMFYUI_SHIFT),
    )  # fmt: skip
    hub_tags = ("sd3", "sd3-diffusers")
    licenses: ClassVar = {one: community(one) for one in (BASE, LARGE, TURBO)}

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return prompt_embeds (B, 77 + 256, D) and pooled_projections (B, P).

        Of a base without T5 the texts are those of both CLIPs, (B, 77, both widths); `_filled` adds
        the zeros, whose width the transformer says.
        """
        if pipeline.text_encoder_3 is None:
            import torch

            read = pipeline._get_clip_prompt_embeds  # the pipeline's own call wants a transformer
            clips = [read(list(prompts), clip_model_index=number) for number in (0, 1)]
            text, pooled = (torch.cat(both, dim=-1) for both in zip(*clips, strict=True))
            return {"prompt_embeds": text, "pooled_projections": pooled}
        length = min(self.text_tokens, pipeline.tokenizer_3.model_max_length)
        embeds, _, pooled, _ = pipeline.encode_prompt(
            list(prompts),
            None,
            None,
            do_classifier_free_guidance=False,
            max_sequence_length=length,
        )
        return {"prompt_embeds": embeds, "pooled_projections": pooled}

    def training_notes(self, index: Mapping[str, Any], base: str) -> Iterator[str]:
        """Yield that a base is distilled for few steps, which its name alone says."""
        yield from turbo_note(base, BASE, "--guidance 1")

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds and pooled_projections."""
        from tlora_cli.families.shapes import random_like

        config, draw = denoiser.config, random_like(denoiser, batch)
        return {
            "prompt_embeds": draw(CLIP_TOKENS + tokens, config.joint_attention_dim),
            "pooled_projections": draw(config.pooled_projection_dim),
        }

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the transformer, which cuts latents into patches itself; it takes t."""
        answer: Tensor = denoiser(
            hidden_states=noisy,
            encoder_hidden_states=_filled(conditioning["prompt_embeds"], denoiser),
            pooled_projections=conditioning["pooled_projections"],
            timestep=self.told(t),
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
        """Run StableDiffusion3Pipeline on embeddings."""
        assert negative is not None, "it takes negative prompts"
        denoiser = pipeline.transformer
        latents: Tensor = pipeline(
            prompt_embeds=_filled(positive["prompt_embeds"], denoiser),
            pooled_prompt_embeds=positive["pooled_projections"],
            negative_prompt_embeds=_filled(negative["prompt_embeds"], denoiser),
            negative_pooled_prompt_embeds=negative["pooled_projections"],
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
        """Yield the original model's names, where queries, keys and values are one layer."""
        from tlora_cli.families.bfl_names import names_of_layers

        blocks = ("joint_blocks", "transformer_blocks", IN_BLOCK)
        yield from names_of_layers([blocks], {}, layer_names)


SD3 = StableDiffusion3()
