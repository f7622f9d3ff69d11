"""Qwen-Image (Alibaba 2025): a rectified-flow transformer of 60 double blocks.

Public facts of diffusers 0.42 (`QwenImagePipeline`, the defaults of `QwenImageTransformer2DModel`
and `AutoencoderKLQwenImage`), of Qwen/Qwen-Image (config.json of each part) and of diffusers' own
trainer of a LoRA (`train_dreambooth_lora_qwen_image.py`).

**What is adapted.** The layers that FLUX.1's adapters have in its double blocks: queries, keys and
values of picture and text, and the picture's output. diffusers' trainer has the picture's alone.

**Texts** have lengths of their own. One that is filled up beside a longer one has a mask; where all
tokens count there is none, as the pipeline does it. The VAE is one of films: a picture is a frame.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.comfyui_parts import flow_sampling, flow_times, loaded_apart
from tlora_cli.families.facts import Argument, Conditioning, Kohya, License, TextEncoder
from tlora_cli.families.packed_flow import PackedFlow
from tlora_cli.families.rectified_flow import (
    GIVEN_LEVELS,
    MASKED_AS_FOR_FLUX,
    as_published_for_flux,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BASE = "Qwen/Qwen-Image"
STEPS, GUIDANCE = 50, 4.0  # defaults of the pipeline (diffusers 0.42)
COMFYUI_SHIFT = 1.15
"""ComfyUI's default shift of Qwen-Image."""
SMALL = {"gradient_checkpointing": True, "quantization": "nf4"}
FOREIGN = (
    r"single_|double_blocks|attn2|to_gate|to_qkv|[._]norm1|[._]ff(_context)?[._]|time_guidance_embed"
    r"|context_embedder|vector_in|text_fusion|img_mlp[._](proj|out|gate_layer)"
)
"""Those of FLUX, FLUX.2, Stable Diffusion 3, Krea 2 and 2.1, whose blocks are called alike."""


class QwenImage(PackedFlow):
    """A transformer of double blocks, with the text of a language model that also sees."""

    name = "qwen_image"
    title = "Qwen-Image"
    denoiser_words = "a QwenImageTransformer2DModel"
    denoiser = "transformer"
    denoiser_class = "diffusers:QwenImageTransformer2DModel"
    pipeline_class = "diffusers:QwenImagePipeline"
    vae_class = "diffusers:AutoencoderKLQwenImage"
    vae_frames = True
    text_encoders = (TextEncoder("text_encoder", "tokenizer"),)
    text_tokens = 512  # the pipeline's own limit, if it is told none
    text_tokenizer = "tokenizer"
    no_learned_words = (
        "Qwen-Image's text encoder cuts a word into other tokens behind a space than without one, "
        "so none always stand for it"
    )
    single_file_is_whole = False
    single_file_keys = (".img_mod.1.", ".txt_mod.1.")
    targets = r"transformer_blocks\.\d+\.attn\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj)"
    # The modulations, too, of which each block has its own, as in musubi-tuner.
    named_targets: ClassVar = dict.fromkeys(("linear", "all"), r"transformer_blocks\..+")
    shared_input = r"(.*\.attn)\.(to)_[qkv]|(.*\.attn)\.(add)_[qkv]_proj"
    layer_prefixes = ("transformer_blocks",)
    foreign_layers = FOREIGN
    whole_model = (r"^transformer_blocks\.\d+\.(img|txt)_mod\.1\.", "a whole transformer")
    timestep_input = Argument("timestep", 3)
    # Else it is for editing (Qwen-Image-Edit-2511, Layered), or told its guidance.
    denoiser_settings: ClassVar = dict.fromkeys(
        ("guidance_embeds", "zero_cond_t", "use_additional_t_cond", "use_layer3d_rope"), False
    )
    text_widths: ClassVar = {"joint_attention_dim": ("text_encoder.text_config.hidden_size",)}
    standard_base = BASE
    standard_title = "Qwen-Image"
    standard_gigabytes = 58
    standard_denoiser: ClassVar = {}
    standard_vae: ClassVar = {}
    standard_text_parameters = 8_292_166_656  # Qwen2.5-VL-7B, with what sees
    standard_text_waiting = 26 * 233_057_792 + 32 * 19_702_200
    resolutions = (1024, 768, 512)
    samplers: ClassVar = GIVEN_LEVELS
    guidance_doubles = True
    guidance_batched = False
    # Of training: what T-LoRA published for FLUX.1; for Qwen-Image nothing is.
    defaults: ClassVar = as_published_for_flux(STEPS, GUIDANCE)
    masked_defaults: ClassVar = MASKED_AS_FOR_FLUX
    memory_presets: ClassVar = {
        "24gb": SMALL,
        "16gb": {**SMALL, "offload": True},
        "12gb": {**SMALL, "offload": True},
        "8gb": {**SMALL, "offload": True, "resolution": 768},
    }
    kohya = Kohya("networks.lora_qwen_image", "qwen_image", own_names=True)  # musubi-tuner
    comfyui = loaded_apart(
        "qwen_image_bf16.safetensors",
        ("CLIPLoader", {"clip_name": "qwen_2.5_vl_7b.safetensors", "type": "qwen_image"}),
        "qwen_image_vae.safetensors",
        sampling=flow_sampling(STEPS, GUIDANCE),
        **flow_times(COMFYUI_SHIFT, logarithm=True),
    )
    hub_tags = ("qwen-image", "qwen-image-diffusers")
    licenses: ClassVar = dict.fromkeys((BASE, f"{BASE}-2512"), License("apache-2.0"))

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return prompt_embeds (B, L, D), and a mask (B, L) if not all are of length L."""
        from tlora_cli.families.text_rows import MASK, TEXT

        embeds, mask = pipeline.encode_prompt(list(prompts), max_sequence_length=self.text_tokens)
        return {TEXT: embeds} if mask is None else {TEXT: embeds, MASK: mask.bool()}

    def text_room(self, tokenizer: Any, limit: int) -> int:
        """Return the whole limit: what stands before a prompt is read beside it, and left out."""
        return limit

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds, all tokens of which count."""
        from tlora_cli.families.shapes import random_like
        from tlora_cli.families.text_rows import TEXT

        draw = random_like(denoiser, batch)
        return {TEXT: draw(tokens, denoiser.config.joint_attention_dim)}

    def answer_channels(self, config: Mapping[str, Any]) -> int | None:
        """Return the channels of an answer; the configuration says those of a latent."""
        found = super().answer_channels(config)
        return found and found * self.latent_patch**2

    def inputs(self, noisy: Tensor, conditioning: Conditioning) -> dict[str, Any]:
        """Return the text, its mask, and the shape of each picture: frames, rows, columns."""
        from tlora_cli.families.text_rows import MASK, TEXT

        rows, columns = (side // self.latent_patch for side in noisy.shape[-2:])
        return {
            "encoder_hidden_states": conditioning[TEXT],
            "encoder_hidden_states_mask": conditioning.get(MASK),
            "img_shapes": [[(1, rows, columns)]] * len(noisy),
        }

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
        """Run QwenImagePipeline on embeddings.

        Its guidance has the length of each token's answer as without guidance.
        """
        from tlora_cli.families.text_rows import MASK, TEXT, mask_of

        texts = {TEXT: positive[TEXT], MASK: mask_of(positive)}
        if negative is not None and guidance > 1:  # else it is not asked for, with a warning
            texts |= {f"negative_{TEXT}": negative[TEXT], f"negative_{MASK}": mask_of(negative)}
        tokens = pipeline(
            **texts,
            width=width,
            height=height,
            num_inference_steps=steps,
            true_cfg_scale=guidance,
            generator=generators,
            max_sequence_length=self.text_tokens,
            output_type="latent",
            return_dict=False,
        )[0]
        return self.unpacked(tokens, width, height)


QWEN_IMAGE = QwenImage()
