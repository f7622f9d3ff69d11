"""Names that the published T-LoRA code (ControlGenAI/T-LoRA) gives tensors, layers and trainers."""

from __future__ import annotations

import re

KEY = re.compile(
    r"(?P<attn>(?:down_blocks|up_blocks|mid_block|transformer_blocks|single_transformer_blocks)\..+)"
    r"\.processor\.(?P<projection>to_(?:q|k|v|out|q_proj|k_proj|v_proj))_lora"
    r"\.(?P<part>down|up|q_layer|p_layer|lambda_layer|base_q|base_p|base_lambda)(?:\.weight)?"
)

LAYERS = {
    "to_q": "to_q",
    "to_k": "to_k",
    "to_v": "to_v",
    "to_out": "to_out.0",
    "to_q_proj": "add_q_proj",
    "to_k_proj": "add_k_proj",
    "to_v_proj": "add_v_proj",
}
"""Projection in the processor -> layer of the attention module."""
USED_IN_SINGLE_BLOCKS = ("to_q", "to_k", "to_v")
"""FLUX's processors hold all seven everywhere; a single block calls only these."""
TRAINERS = {"sdxl_tlora": True, "sdxl_lora": False}
"""Published SDXL trainer -> whether it masks."""
SDXL_FILE, FLUX_FILE = "pytorch_lora_weights.safetensors", "lora.pt"
