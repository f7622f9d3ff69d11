"""A tiny Flux2Pipeline with random weights, as FLUX.2-dev has: Mistral, and a distilled guidance.

Its processor needs torchvision, which the tests do without; a tokenizer with a chat template takes
the same calls.
"""

from __future__ import annotations

from pathlib import Path

from diffusers import Flux2Pipeline
from tiny_models.flux2 import flux2_transformer as transformer
from tiny_models.parts import moving_shift
from tiny_models.qwen import qwen_tokenizer
from tiny_models.vaes import vae_with_norm
from tiny_models.writing import write_pipeline
from transformers import Mistral3Config, Mistral3ForConditionalGeneration, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]"
    "{% for part in message.content %}{{ part.text }}{% endfor %}{% endfor %}"
)


def write_tiny_flux2_dev(folder: Path) -> Path:
    """Write the pipeline's folder; the same weights each time."""
    write_pipeline(_tiny_flux2_dev, folder, seed=0)
    return folder


def _tiny_flux2_dev() -> Flux2Pipeline:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=qwen_tokenizer().backend_tokenizer,
        pad_token="<|endoftext|>",
        model_max_length=512,
        chat_template=TEMPLATE,
    )
    text = {
        "model_type": "mistral",
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 31,  # states 10, 20 and 30 are the text
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "initializer_range": 0.3,
        "max_position_embeddings": 512,
    }
    vision = {
        "model_type": "pixtral",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Mistral3Config(text_config=text, vision_config=vision)
    return Flux2Pipeline(
        scheduler=moving_shift(),
        vae=vae_with_norm(),
        text_encoder=Mistral3ForConditionalGeneration(config).eval(),
        tokenizer=tokenizer,
        transformer=transformer(3 * 16, guidance_embeds=True),
    )
