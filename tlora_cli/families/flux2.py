"""FLUX.2 (Black Forest Labs 2025): a rectified-flow transformer over patches of normalized latents.

Two pipelines of diffusers run it: klein (4 and 9 billion parameters) has the text of Qwen3 and
classifier-free guidance, dev (32 billion) that of Mistral and a guidance that is distilled into it.
Public facts of diffusers 0.42 and its conversion script `convert_flux2_to_diffusers.py`.

**What is adapted.** In the double blocks the layers that FLUX.1's adapters have: queries, keys and
values of picture and text, and the picture's output. A single block has two layers alone.
`to_qkv_mlp_proj` makes queries, keys and values, and in the same product what the MLP reads; it is
adapted as a whole, so that a file loads in other programs. `to_out` sums attention and MLP, as
FLUX.1's `proj_out` does, which is not adapted either. The reach `linear` has both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.bfl_names import names_of_layers
from tlora_cli.families.comfyui_parts import flow_sampling, flow_times, loaded_apart
from tlora_cli.families.facts import (
    KL_VAE,
    Argument,
    Conditioning,
    Kohya,
    License,
    TextEncoder,
)
from tlora_cli.families.flux2_names import BLOCKS, FOREIGN, OUTSIDE_BLOCKS
from tlora_cli.families.flux2_sizes import LARGE, MIDDLE
from tlora_cli.families.rectified_flow import (
    MASKED_AS_FOR_FLUX,
    RectifiedFlow,
    as_published_for_flux,
)
from tlora_cli.foundation.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

MAKER = "black-forest-labs"
BASE = f"{MAKER}/FLUX.2-klein-base-4B"
STEPS, GUIDANCE = 50, 4.0  # defaults of both pipelines (diffusers 0.42)
COMFYUI_SHIFT = 2.02
"""ComfyUI's default shift of FLUX.2."""
SMALL = {"gradient_checkpointing": True}


class Flux2(RectifiedFlow):
    """A transformer of double and single blocks, with the text of one language model."""

    name = "flux2"
    title = "FLUX.2"
    denoiser_words = "a Flux2Transformer2DModel"
    denoiser = "transformer"
    denoiser_class = "diffusers:Flux2Transformer2DModel"
    pipeline_class = "diffusers:Flux2KleinPipeline"
    other_pipelines = ("diffusers:Flux2Pipeline",)
    vae_class = "diffusers:AutoencoderKLFlux2"
    text_encoders = (TextEncoder("text_encoder", "tokenizer"),)
    text_tokens = 512
    text_tokenizer = "tokenizer"
    no_learned_words = (
        "FLUX.2's text encoders cut a word into other tokens behind a space than without one, so "
        "none always stand for it"
    )
    single_file_is_whole = False
    single_file_keys = ("double_blocks.", "single_stream_modulation.")
    targets = (
        r"transformer_blocks\.\d+\.attn\.(to_(q|k|v|out\.0)|add_(q|k|v)_proj)"
        r"|single_transformer_blocks\.\d+\.attn\.to_qkv_mlp_proj"
    )
    # Its modulations stand outside of the blocks, which share them, and are not among these.
    named_targets: ClassVar = dict.fromkeys(("linear", "all"), r"(single_)?transformer_blocks\..+")
    shared_input = r"(.*\.attn)\.(to)_[qkv]|(.*\.attn)\.(add)_[qkv]_proj"
    layer_prefixes = (
        *(side for blocks in BLOCKS for side in blocks[:2]),
        "double_stream_modulation",
        "single_stream_modulation",
    )
    foreign_layers = FOREIGN
    turned_layers = ("final_layer_adaLN_modulation_1",)
    whole_model = (
        r"^(double|single|transformer|single_transformer)_blocks\.\d+\.",
        "a whole transformer",
    )
    latent_patch = 2
    timestep_input = Argument("timestep", 2)
    latent_input = Argument("hidden_states", 0)
    text_widths: ClassVar = {"joint_attention_dim": ("text_encoder.hidden_size",) * 3}
    standard_base = BASE
    standard_title = "FLUX.2 klein base 4B"
    standard_gigabytes = 16
    standard_denoiser: ClassVar = {
        "patch_size": 1,
        "in_channels": 128,
        "num_layers": 5,
        "num_single_layers": 20,
        "attention_head_dim": 128,
        "num_attention_heads": 24,
        "joint_attention_dim": 3 * 2560,
        "guidance_embeds": False,
    }
    standard_vae: ClassVar = {**KL_VAE, "latent_channels": 32}
    standard_text_parameters = 4_022_468_096  # Qwen3-4B
    standard_text_waiting = 34 * 100_930_816
    other_bases: ClassVar = {
        f"{MAKER}/FLUX.2-klein-base-9B": MIDDLE,
        f"{MAKER}/FLUX.2-klein-9B": MIDDLE,
        f"{MAKER}/FLUX.2-dev": LARGE,
    }
    resolutions = (1024, 768, 512)
    guidance_doubles = True
    guidance_batched = False
    # Of training: what T-LoRA published for FLUX.1; for FLUX.2 nothing is.
    defaults: ClassVar = as_published_for_flux(STEPS, GUIDANCE)
    masked_defaults: ClassVar = MASKED_AS_FOR_FLUX
    memory_presets: ClassVar = {
        "24gb": SMALL,
        "16gb": SMALL,
        "12gb": {**SMALL, "quantization": "int8"},
        "8gb": {**SMALL, "offload": True},
    }
    kohya = Kohya("networks.lora_flux_2", "flux_2_klein_4b")  # musubi-tuner
    comfyui = loaded_apart(
        "flux-2-klein-base-4b.safetensors",
        ("CLIPLoader", {"clip_name": "qwen_3_4b.safetensors", "type": "flux2"}),
        "flux2-vae.safetensors",
        "EmptyFlux2LatentImage",
        sampling=flow_sampling(STEPS, GUIDANCE),
        **flow_times(COMFYUI_SHIFT, logarithm=True),
    )
    hub_tags = ("flux2", "flux2-diffusers")
    licenses: ClassVar = {
        BASE: License("apache-2.0"),
        f"{MAKER}/FLUX.2-klein-4B": License("apache-2.0"),
    }

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return prompt_embeds (B, 512, 3D): three hidden states of the language model, joined."""
        embeds, _ = pipeline.encode_prompt(list(prompts), max_sequence_length=self.text_tokens)
        return {"prompt_embeds": embeds}

    def encode_negative(self, pipeline: Any, prompt: str) -> Conditioning | None:
        """Return the prompt's embeddings; None where the base has no classifier-free guidance.

        Raises:
            UserError: if a prompt is given for such a base.
        """
        if takes_negative(pipeline):
            return self.encode_prompts(pipeline, [prompt])
        if prompt:
            raise UserError(
                "this base takes no negative prompt: guidance is distilled into it",
                where="sampling.negative_prompt",
                do=f"leave it empty, or use an undistilled base, as {BASE} is",
            )
        return None

    def text_room(self, tokenizer: Any, limit: int) -> int:
        """Return the tokens behind what the chat template puts before a prompt.

        Raises:
            UserError: if the tokenizer has no chat template.
        """
        from tlora_cli.families.chat_template import room_of_chat, user_message

        if "qwen" in type(tokenizer).__name__.lower():
            return room_of_chat(self.title, tokenizer, limit, user_message)
        from diffusers.pipelines.flux2.pipeline_flux2 import format_input

        return room_of_chat(self.title, tokenizer, limit, lambda text: format_input([text])[0])

    def training_notes(self, index: Mapping[str, Any], base: str) -> Iterator[str]:
        """Yield that a base is distilled for few steps."""
        if index.get("is_distilled"):
            yield (
                "is distilled to draw in a few steps, and training works against that: what is "
                f"trained on it may draw worse with each step. Train on its base, as {BASE} is, "
                "and draw with `tlora sample --base` of the distilled one"
            )

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds."""
        from tlora_cli.families.shapes import random_like

        draw = random_like(denoiser, batch)
        return {"prompt_embeds": draw(tokens, denoiser.config.joint_attention_dim)}

    def latent_channels(self, denoiser: Any) -> int:
        """Return the channels of a latent; the transformer is given patches of 2 x 2."""
        return super().latent_channels(denoiser) // self.latent_patch**2

    def latent_scale(self, vae: Any, like: Tensor) -> tuple[Any, Any]:
        """Return mean and 1 / standard deviation for each place of latents (B, C, h, w).

        The VAE's batch norm has both for each channel of the 2 x 2 patches, 4C in all, as averages
        over its training; it is not run, and follows no picture.
        """
        norm = vae.bn
        height, width = like.shape[-2:]

        def placed(values: Tensor) -> Tensor:
            return values.view(1, -1, 2, 2).repeat(1, 1, height // 2, width // 2).to(like)

        deviation = (norm.running_var + vae.config.batch_norm_eps).sqrt()
        return placed(norm.running_mean), placed(1 / deviation)

    def guidance_calls(self, denoiser: Any, guidance: float) -> int:
        """Return 1 where the guidance is told, as to dev, and 2 where it takes two answers."""
        return 1 if denoiser.config.guidance_embeds else super().guidance_calls(denoiser, guidance)

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the transformer on packed latents; it takes t / 1000."""
        import torch

        from tlora_cli.families.patches import four_ids, pack, unpack

        height, width = noisy.shape[-2:]
        text = conditioning["prompt_embeds"]
        config: Any = denoiser.config
        guided = config.guidance_embeds
        image_ids, text_ids = four_ids(height, width, text.shape[1], noisy.device)
        tokens: Tensor = denoiser(
            hidden_states=pack(noisy),
            encoder_hidden_states=text,
            timestep=self.told(t),
            img_ids=image_ids,
            txt_ids=text_ids,
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
        """Run the base's pipeline on embeddings.

        klein's gives latents of the VAE, dev's packed ones in the transformer's scale.
        """
        from tlora_cli.families.patches import unpack

        options: dict[str, Any] = {"guidance_scale": guidance}
        if negative is not None:
            options["negative_prompt_embeds"] = negative["prompt_embeds"]
        if pipeline.config.get("is_distilled"):
            options["guidance_scale"] = 1.0  # all others are left aside, with a warning
        found: Tensor = pipeline(
            prompt_embeds=positive["prompt_embeds"],
            width=width,
            height=height,
            num_inference_steps=steps,
            generator=generators,
            output_type="latent",
            return_dict=False,
            **options,
        )[0]
        if found.dim() == 3:
            unit = 2 * pipeline.vae_scale_factor
            return unpack(found, 2 * (height // unit), 2 * (width // unit))
        shift, scale = self.latent_scale(pipeline.vae, found.float())
        latents: Tensor = (found.float() - shift) * scale
        return latents

    def sampler(self, name: str, config: Mapping[str, Any]) -> Any:
        """Return the scheduler; the pipelines say a moving shift, which only Euler may leave aside.

        Raises:
            UserError: for another one on a base with a fixed shift.
        """
        made = super().sampler(name, config)
        fixed = not config.get("use_dynamic_shifting", True)
        if fixed and made.config.get("use_flow_sigmas"):
            raise UserError(
                f"sampler {name} can't draw with this base's fixed shift",
                where="sampling.scheduler",
                do="use default or euler",
            )
        return made

    def original_names(self, layer_names: Collection[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield the original model's names, where queries, keys and values are one layer."""
        yield from names_of_layers(BLOCKS, OUTSIDE_BLOCKS, layer_names)


def takes_negative(pipeline: Any) -> bool:
    """Say whether a pipeline guides by a second answer, to a negative prompt."""
    from inspect import signature

    known = signature(pipeline.__call__).parameters
    return "negative_prompt_embeds" in known and not pipeline.config.get("is_distilled")


FLUX2 = Flux2()
