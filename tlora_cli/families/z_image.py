"""Z-Image (Tongyi Lab 2025): a rectified-flow transformer over picture and text as one sequence.

Public facts of diffusers 0.42 (`ZImagePipeline`, `ZImageTransformer2DModel` and its defaults), of
Tongyi-MAI/Z-Image (config.json of each part) and of diffusers' own trainer of a LoRA
(`train_dreambooth_lora_z_image.py`), which adapts the attention of all blocks, as here.

Three things are otherwise than in other families, and each stands in one method: the transformer is
told how clear a picture is, 1 - t / 1000; it answers with latent minus noise; and it takes lists, a
text in its own length, which moves the places of the picture's tokens.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.comfyui_parts import flow_sampling, flow_times, loaded_apart
from tlora_cli.families.facts import (
    KL_VAE,
    Argument,
    Conditioning,
    Kohya,
    License,
    TextEncoder,
)
from tlora_cli.families.rectified_flow import (
    GIVEN_LEVELS,
    MASKED_AS_FOR_FLUX,
    RectifiedFlow,
    as_published_for_flux,
    turbo_note,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MAKER = "Tongyi-MAI"
BASE = f"{MAKER}/Z-Image"
TURBO = f"{MAKER}/Z-Image-Turbo"
STEPS, GUIDANCE = 50, 5.0  # defaults of the pipeline (diffusers 0.42)
COMFYUI_SHIFT = 3.0
"""ComfyUI's default shift of Z-Image."""
SMALL = {"gradient_checkpointing": True}
REFINERS = ("noise_refiner", "context_refiner")
BLOCKS = ("layers", *REFINERS)
IN_BLOCK = {
    "attention_qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention_out": ("attention.to_out.0",),
}
OUTSIDE_BLOCKS = {
    "x_embedder": "all_x_embedder.2-1",
    "final_layer_linear": "all_final_layer.2-1.linear",
}
"""Name of the original model, where it is another -> layers."""


class ZImage(RectifiedFlow):
    """A transformer of single-stream blocks, with the text of one language model."""

    name = "z_image"
    title = "Z-Image"
    denoiser_words = "a ZImageTransformer2DModel"
    denoiser = "transformer"
    denoiser_class = "diffusers:ZImageTransformer2DModel"
    pipeline_class = "diffusers:ZImagePipeline"
    text_encoders = (TextEncoder("text_encoder", "tokenizer"),)
    text_tokens = 512
    text_tokenizer = "tokenizer"
    no_learned_words = (
        "Z-Image's text encoder cuts a word into other tokens behind a space than without one, so "
        "none always stand for it"
    )
    single_file_is_whole = False
    single_file_keys = ("layers.0.adaLN_modulation.0.", "context_refiner.")
    single_file_unread = ("norm_final.weight",)  # Lumina 2's code has it
    targets = r"(layers|noise_refiner|context_refiner)\.\d+\.attention\.to_(q|k|v|out\.0)"
    # The modulations, too, of which the blocks of the text alone have none.
    named_targets: ClassVar = dict.fromkeys(
        ("linear", "all"), r"(layers|noise_refiner|context_refiner)\..+"
    )
    shared_input = r"(.*\.attention)\.to_[qkv]|(.*\.feed_forward)\.w[13]"
    layer_prefixes = tuple(f"{block}{mark}" for block in BLOCKS for mark in "._")
    # Lumina 2's blocks are called alike, and a language model's are `layers`, too.
    foreign_layers = (
        r"(layers|refiner)[._]\d+[._]((attn|self_attn|cross_attn|mlp|norm1)[._]"
        r"|adaLN_modulation[._]1(?!\d)|feed_forward[._]linear_)"
    )
    whole_model = (r"^(layers|noise_refiner|context_refiner)\.\d+\.", "a whole transformer")
    latent_patch = 2
    timestep_input = Argument("t", 1)
    latent_input = Argument("x", 0)
    text_widths: ClassVar = {"cap_feat_dim": ("text_encoder.hidden_size",)}
    denoiser_settings: ClassVar = {"siglip_feat_dim": None}  # Z-Image-Omni sees pictures, too
    timestep_scale = None
    standard_base = BASE
    standard_title = "Z-Image"
    standard_gigabytes = 21
    standard_denoiser: ClassVar = {}
    standard_vae: ClassVar = {
        **KL_VAE,
        "latent_channels": 16,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    }
    standard_text_parameters = 4_022_468_096  # Qwen3-4B
    standard_text_waiting = 34 * 100_930_816
    resolutions = (1024, 768, 512)
    samplers: ClassVar = GIVEN_LEVELS
    guidance_doubles = True
    guidance_none = 0.0
    no_recorded_step = "texts of Z-Image have lengths of their own, and a CUDA graph one for all"
    # Of training: what T-LoRA published for FLUX.1, the schedule alone; for Z-Image nothing is.
    defaults: ClassVar = as_published_for_flux(STEPS, GUIDANCE)
    masked_defaults: ClassVar = MASKED_AS_FOR_FLUX
    memory_presets: ClassVar = {
        "24gb": SMALL,
        "16gb": {**SMALL, "quantization": "int8"},
        "12gb": {**SMALL, "quantization": "int8"},
        "8gb": {**SMALL, "offload": True},
    }
    kohya = Kohya("networks.lora_zimage", "z_image", own_names=True)  # musubi-tuner
    comfyui = loaded_apart(
        "z_image_bf16.safetensors",
        ("CLIPLoader", {"clip_name": "qwen_3_4b.safetensors", "type": "lumina2"}),
        "ae.safetensors",
        sampling=flow_sampling(STEPS, GUIDANCE + 1),  # there u + cfg (c - u)
        **flow_times(COMFYUI_SHIFT),
    )
    hub_tags = ("z-image",)
    licenses: ClassVar = {BASE: License("apache-2.0"), TURBO: License("apache-2.0")}

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return prompt_embeds (B, 512, D), filled up with zeros, and the texts' lengths (B, 1)."""
        import torch

        texts, _ = pipeline.encode_prompt(
            list(prompts),
            do_classifier_free_guidance=False,
            max_sequence_length=self.text_tokens,
        )
        lengths = [len(text) for text in texts]
        rows = texts[0].new_zeros(len(texts), self.text_tokens, texts[0].shape[1])
        for row, text in zip(rows, texts, strict=True):
            row[: len(text)] = text
        return {
            "prompt_embeds": rows,
            "prompt_lengths": torch.tensor(lengths, device=rows.device).view(-1, 1),
        }

    def text_room(self, tokenizer: Any, limit: int) -> int:
        """Return the tokens behind what the chat template puts before a prompt."""
        from tlora_cli.families.chat_template import room_of_chat

        return room_of_chat(self.title, tokenizer, limit)

    def training_notes(self, index: Mapping[str, Any], base: str) -> Iterator[str]:
        """Yield that a base is distilled for few steps, which its name alone says."""
        yield from turbo_note(base, BASE, "--guidance 0")

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds; without lengths, each fills its row."""
        from tlora_cli.families.shapes import random_like

        return {"prompt_embeds": random_like(denoiser, batch)(tokens, denoiser.config.cap_feat_dim)}

    def told(self, t: Tensor) -> Tensor:
        """Return how clear a picture is at t: (1000 - t) / 1000."""
        return (1000 - t.float()) / 1000

    def timesteps(self, given: Tensor) -> Tensor:
        """Return t, the rounding of `told` undone."""
        return ((1 - given) * 1e7).round() / 1e4

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the transformer on one list of latents, of one frame each, and one of texts."""
        import torch

        answers = denoiser(
            list(noisy.unsqueeze(2).unbind()),
            self.told(t),
            texts_of(conditioning),
            return_dict=False,
        )[0]
        return -torch.stack(answers).squeeze(2)

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
        """Run ZImagePipeline on embeddings; its guidance g is that of c + g (c - u).

        The noise levels are those that it takes by itself: as a list, which UniPC can't divide.
        """
        import torch

        latents: Tensor = pipeline(
            prompt_embeds=texts_of(positive),
            negative_prompt_embeds=texts_of(negative) if negative else None,
            width=width,
            height=height,
            num_inference_steps=steps,
            sigmas=torch.linspace(1, 1 / steps, steps).numpy(),
            guidance_scale=guidance,
            generator=generators,
            output_type="latent",
            return_dict=False,
        )[0]
        return latents

    def original_names(self, layer_names: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the original model's names, where queries, keys and values are one layer."""
        for block in BLOCKS:
            numbers = {n.split(".")[1] for n in layer_names if n.startswith(f"{block}.")}
            for number in numbers:
                for alias, layers in IN_BLOCK.items():
                    full = tuple(f"{block}.{number}.{layer}" for layer in layers)
                    yield f"{block}_{number}_{alias}", full
        for alias, layer in OUTSIDE_BLOCKS.items():
            yield alias, (layer,)


def texts_of(conditioning: Conditioning) -> list[Tensor]:
    """Return each text in its own length, (L, D)."""
    rows = conditioning["prompt_embeds"]
    lengths = conditioning.get("prompt_lengths")
    if lengths is None:
        return list(rows.unbind())
    return [row[:length] for row, length in zip(rows, lengths.flatten().tolist(), strict=True)]


Z_IMAGE = ZImage()
