"""A tiny CLIPSeg of random weights, of the true classes of transformers."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    ViTImageProcessor,
)

from tlora_cli.foundation.bundled import model_folder

SIDE = 32
"""The model looks at squares of this side, in pixels."""


def write_tiny_clipseg(folder: Path) -> Path:
    """Write the model with its processor into a folder, and return it."""
    tokenizer = CLIPTokenizer.from_pretrained(model_folder("toy-clip"))
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 40,
            "vocab_size": len(tokenizer)}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3,
              "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8}  # fmt: skip
    config = CLIPSegConfig(
        text_config=text, vision_config=vision, projection_dim=16, reduce_dim=8,
        extract_layers=[0, 1], decoder_num_attention_heads=2, decoder_intermediate_size=16,
    )  # fmt: skip
    torch.manual_seed(0)
    CLIPSegForImageSegmentation(config).eval().save_pretrained(folder)
    images = ViTImageProcessor(size={"height": SIDE, "width": SIDE})
    CLIPSegProcessor(images, tokenizer).save_pretrained(folder)
    return folder
