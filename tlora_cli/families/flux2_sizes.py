"""Sizes of the larger models of FLUX.2: klein with 9 billion parameters, and dev with 32."""

from __future__ import annotations

from tlora_cli.families.facts import Published

MIDDLE = Published(
    {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32}
    | {"joint_attention_dim": 3 * 4096},
    text_parameters=8_190_735_360,  # Qwen3-8B
    text_waiting=34 * 192_946_432,
)
LARGE = Published(
    {
        "num_layers": 8,
        "num_single_layers": 48,
        "num_attention_heads": 48,
        "joint_attention_dim": 3 * 5120,
        "guidance_embeds": True,
    },
    text_parameters=24_011_361_280,  # Mistral Small 3
    text_waiting=21_521_412_096,
)
