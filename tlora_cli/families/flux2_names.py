"""FLUX.2's layers in the original model's names, and how FLUX.1's are told from them.

The names are those of diffusers' `convert_flux2_transformer_checkpoint_to_diffusers`.
"""

from __future__ import annotations

DOUBLE = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn_proj": ("attn.to_out.0",),
    "img_mlp_0": ("ff.linear_in",),
    "img_mlp_2": ("ff.linear_out",),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn_proj": ("attn.to_add_out",),
    "txt_mlp_0": ("ff_context.linear_in",),
    "txt_mlp_2": ("ff_context.linear_out",),
}
SINGLE = {"linear1": ("attn.to_qkv_mlp_proj",), "linear2": ("attn.to_out",)}
BLOCKS = (
    ("double_blocks", "transformer_blocks", DOUBLE),
    ("single_blocks", "single_transformer_blocks", SINGLE),
)
"""Blocks of the original model, of diffusers, and name in the one -> layers in the other."""
OUTSIDE_BLOCKS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in_in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in_out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in_in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in_out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img_lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt_lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation_lin": "single_stream_modulation.linear",
    "final_layer_adaLN_modulation_1": "norm_out.linear",
    "final_layer_linear": "proj_out",
}

FOREIGN = (
    r"single_transformer_blocks[._]\d+[._](attn[._]to_(q(?!kv)|k|v)|proj_|norm[._]linear)"
    r"|[._]norm1(_context)?[._]linear|[._]ff(_context)?[._]net[._]"
    r"|blocks[._]\d+[._](img_mod|txt_mod|modulation)[._]lin|[._]processor[._]"
    r"|single_blocks[._]\d+[._]attn_qkv|time_text_embed|vector_in"
    r"|(double|(?<!single_)transformer)_blocks[._]([89]|\d\d)[._]"
    r"|transformer_blocks[._]\d+[._]((img|txt)_(mod|mlp)|attn2)[._]|[._]attn[._]to_gate|text_fusion"
)
"""FLUX.1's alone: its single blocks keep queries, keys and values apart, each block has modulations
of its own, and there are more than the eight double blocks of the largest FLUX.2. The last are
Qwen-Image's, Stable Diffusion 3's and Krea 2's."""
