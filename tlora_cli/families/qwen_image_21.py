"""Qwen-Image 2.1 (Alibaba 2026): a rectified-flow transformer, text and picture one sequence.

Public facts of diffusers 0.42 (`QwenImage21Pipeline`, the defaults of
`QwenImage21Transformer2DModel` and `AutoencoderKLQwenImage21`).

**What is adapted.** Queries, keys, values and output of the 32 blocks, as in FLUX.1's single ones.

**Texts** have lengths of their own and are read whole. They come first in the sequence and never
see the picture, so the pipeline keeps their keys and values from its first step on. A mask of ranks
changes them at each timestep, so they are computed anew in each step here, and a call with that
cache is refused under a mask. A text that is filled up moves the place of the picture behind it, so
texts are cut to their own length, but in a training batch of several lengths, which share one.

**Latents** are not packed, but have even sides: 2 x 2 places share a slot of the sequence's layout.
The VAE is one of films, and knows transparency: pictures are opaque when they are encoded, and what
it draws is put on white.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from tlora_cli.families.facts import (
    Argument,
    Conditioning,
    LatentDistribution,
    TextEncoder,
)
from tlora_cli.families.rectified_flow import (
    GIVEN_LEVELS,
    MASKED_AS_FOR_FLUX,
    RectifiedFlow,
    as_published_for_flux,
)

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor, nn

BASE = "Qwen/Qwen-Image-2.1"
STEPS, GUIDANCE = 40, 4.0
"""The pipeline's own number of steps (diffusers 0.42), and Qwen-Image's guidance; the pipeline has
none of its own."""
TURNS = {"gradient_checkpointing": True, "offload": True}
SLOT = 4
"""Places of a latent for each slot of the sequence's layout."""


class QwenImage21(RectifiedFlow):
    """A transformer of single-stream blocks, with the text of a language model that also sees."""

    name = "qwen_image_21"
    title = "Qwen-Image 2.1"
    denoiser_words = "a QwenImage21Transformer2DModel"
    denoiser = "transformer"
    denoiser_class = "diffusers:QwenImage21Transformer2DModel"
    pipeline_class = "diffusers:QwenImage21Pipeline"
    vae_class = "diffusers:AutoencoderKLQwenImage21"
    vae_frames = True
    vae_factor = 16
    text_encoders = (TextEncoder("text_encoder", "processor"),)
    text_tokens = 512  # for plans; the pipeline cuts nothing off
    text_tokenizer = "processor"
    no_learned_words = (
        "Qwen-Image 2.1's text encoder cuts a word into other tokens behind a space than without "
        "one, so none always stand for it"
    )
    single_file_is_whole = False
    single_file_keys = ("txt_in.text_norm.",)  # ComfyUI has gate and projection as one layer
    targets = r"transformer_blocks\.\d+\.attn\.to_(q|k|v|out\.0)"
    # Its modulation stands outside of the blocks, which share it, and is not among these.
    named_targets: ClassVar = dict.fromkeys(("linear", "all"), r"transformer_blocks\..+")
    shared_input = r"(.*\.attn)\.to_[qkv]|(.*\.img_mlp)\.(?:proj|gate_layer)"
    layer_prefixes = ("transformer_blocks",)
    # Those of FLUX, FLUX.2, Qwen-Image, Stable Diffusion 3 and Krea 2, whose blocks are called so.
    foreign_layers = (
        r"single_|double_|attn2|to_gate|to_qkv|add_[qkv]_proj|to_add_out|norm1[._]linear"
        r"|[._]ff(_context)?[._]|[._](img|txt)_mod|txt_mlp|img_mlp[._]net|text_fusion"
        r"|time_guidance_embed|context_embedder|vector_in"
    )
    whole_model = (
        r"^transformer_blocks\.\d+\.img_mlp\.gate_layer\.weight$",
        "a whole transformer",
    )
    latent_patch = 2
    timestep_input = Argument("timestep", 2)
    latent_input = Argument("hidden_states", 0)
    denoiser_settings: ClassVar = {"patch_size": 1, "causal_condition": True}
    text_widths: ClassVar = {"context_in_dim": ("text_encoder.text_config.hidden_size",)}
    standard_base = BASE
    standard_title = "Qwen-Image 2.1"
    standard_gigabytes = 33
    standard_denoiser: ClassVar = {}
    standard_vae: ClassVar = {}
    standard_text_parameters = 8_767_123_696  # Qwen3-VL-8B, with what sees
    standard_text_waiting = 34 * 192_946_432 + 27 * 15_239_504
    resolutions = (1024, 768, 512)
    no_recorded_step = "Qwen-Image 2.1 reads the layout of its sequence while it runs"
    samplers: ClassVar = GIVEN_LEVELS
    guidance_doubles = True
    guidance_batched = False
    # Of training: what T-LoRA published for FLUX.1; for Qwen-Image 2.1 nothing is.
    defaults: ClassVar = as_published_for_flux(STEPS, GUIDANCE)
    masked_defaults: ClassVar = MASKED_AS_FOR_FLUX
    memory_presets: ClassVar = {
        "24gb": {"gradient_checkpointing": True, "quantization": "int8"},
        "16gb": {**TURNS, "resolution": 768},
        "12gb": {**TURNS, "resolution": 768},
        "8gb": {**TURNS, "resolution": 512},
    }
    hub_tags = ("qwen-image", "qwen-image-diffusers")

    def made_parts(self, model: str, revision: str | None) -> dict[str, Any]:
        """Return the processor of texts; the base's own needs one of films, too."""
        from tlora_cli.families.text_processor import text_processor

        return {"processor": text_processor(model, "processor", revision)}

    def encode_prompts(self, pipeline: Any, prompts: Sequence[str]) -> Conditioning:
        """Return prompt_embeds (B, L, D), and a mask (B, L) if not all are of length L."""
        from tlora_cli.families.text_rows import MASK, TEXT

        embeds, mask, _ = pipeline.encode_prompt(list(prompts))
        return {TEXT: embeds} if mask is None else {TEXT: embeds, MASK: mask.bool()}

    def text_room(self, tokenizer: Any, limit: int) -> int:
        """Return no limit: the pipeline cuts nothing off."""
        return sys.maxsize

    def encode_image(self, vae: Any, pixels: Tensor) -> LatentDistribution:
        """Return the latent distribution of one picture (3, H, W) in [-1, 1], which is opaque."""
        import torch

        return super().encode_image(vae, torch.cat([pixels, torch.ones_like(pixels[:1])]))

    def decode(self, vae: Any, latents: Tensor) -> list[Image.Image]:
        """Return pictures of latents (B, C, h, w), put on white where they are transparent."""
        from PIL import Image

        found = []
        for picture in super().decode(vae, latents):
            ground = Image.new("RGB", picture.size, "white")
            ground.paste(picture, mask=picture.getchannel("A"))
            found.append(ground)
        return found

    def random_conditioning(self, denoiser: Any, batch: int, tokens: int) -> Conditioning:
        """Return random prompt_embeds, all tokens of which count."""
        from tlora_cli.families.shapes import random_like
        from tlora_cli.families.text_rows import TEXT

        return {TEXT: random_like(denoiser, batch)(tokens, denoiser.config.context_in_dim)}

    def refused_call(self, arguments: Mapping[str, Any]) -> str:
        """Return why the pipeline's cache of texts can't be used under a mask."""
        if arguments.get("kv_cache") is None:
            return ""
        return (
            "the pipeline keeps the texts' keys and values of its first step, whose ranks are not "
            "those of later ones: call it with use_kv_cache=False"
        )

    def predict(
        self,
        denoiser: nn.Module,
        noisy: Tensor,
        t: Tensor,
        conditioning: Conditioning,
        guidance: float,
    ) -> Tensor:
        """Call the transformer, whose sequence is the text and then the picture."""
        import torch

        from tlora_cli.families.text_rows import MASK, TEXT

        text, mask = conditioning[TEXT], conditioning.get(MASK)
        if mask is not None and not mask.is_meta and len(lengths := set(mask.sum(1).tolist())) == 1:
            text, mask = text[:, : lengths.pop()], None
        rows, columns = noisy.shape[-2:]
        places = rows * columns
        # The layout is read; so it has values even where nothing else has, as in plans.
        layout = torch.ones(
            len(noisy),
            text.shape[1] + places // SLOT,
            dtype=torch.bool,
            device="cpu" if noisy.is_meta else noisy.device,
        )
        layout[:, : text.shape[1]] = False
        tokens: Tensor = denoiser(
            hidden_states=noisy.flatten(2).transpose(1, 2),
            encoder_hidden_states=text,
            timestep=self.told(t),
            img_shapes=[[(1, rows, columns)]] * len(noisy),
            img_mask=layout,
            encoder_hidden_states_mask=mask,
            return_dict=False,
        )[0]
        return tokens[:, -places:].transpose(1, 2).reshape(len(noisy), -1, rows, columns)

    def unpacked(self, tokens: Tensor, width: int, height: int) -> Tensor:
        """Return the latents (B, C, h, w) of a pipeline's tokens, for a size in pixels."""
        rows, columns = (side // self.vae_factor for side in (height, width))
        return tokens.transpose(1, 2).reshape(len(tokens), -1, rows, columns)

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
        """Run QwenImage21Pipeline on the embeddings of each text, without its cache of texts."""
        import numpy as np
        import torch

        levels = pipeline.config.get("sample_sigmas")  # a base's own, in place of a number of steps
        own = levels is None or len(levels) == steps
        found = []
        for row, generator in enumerate(generators):
            texts = _alone(positive, row, "")
            if negative is not None and guidance > 1:  # else it is not asked for, with a warning
                texts |= _alone(negative, row, "negative_")
            tokens = pipeline(
                **texts,
                width=width,
                height=height,
                num_inference_steps=steps,
                sigmas=None if own else np.linspace(1.0, 1 / steps, steps),
                true_cfg_scale=guidance,
                generator=generator,
                output_type="latent",
                return_dict=False,
                use_kv_cache=False,
            )[0]
            found.append(self.unpacked(tokens, width, height))
        return torch.cat(found)


def _alone(texts: Conditioning, row: int, prefix: str) -> Conditioning:
    """Return one of the texts in its own length; one that there is alone belongs to all rows."""
    from tlora_cli.families.text_rows import TEXT, mask_of

    row %= len(texts[TEXT])
    length = int(mask_of(texts)[row].sum())
    return {f"{prefix}{TEXT}": texts[TEXT][row : row + 1, :length]}


QWEN_IMAGE_21 = QwenImage21()
