"""The published SDXL and FLUX.1-dev configurations, on the meta device: names, counts, shapes."""

from __future__ import annotations

import pytest
import torch

from tlora_cli import Adapter, attach
from tlora_cli.families.standard import meta_denoiser


def trained(adapter: Adapter) -> int:
    return sum(parameter.numel() for parameter in adapter.parameters())


def test_sdxl_has_560_layers_of_the_known_widths() -> None:
    adapter = attach(meta_denoiser("sdxl"), "lora", 64)
    shapes = [(down.shape[1], up.shape[0]) for down, up in adapter.weights().layers.values()]
    assert len(shapes) == 560
    assert sum(out == 640 for _, out in shapes) == 80
    assert sum(out == 1280 for _, out in shapes) == 480
    assert sum(width == 2048 for width, _ in shapes) == 140
    assert trained(adapter) == 64 * sum(a + b for a, b in shapes) == 92_897_280


def test_sdxl_tlora_adds_one_number_a_component() -> None:
    adapter = attach(meta_denoiser("sdxl"), "tlora", 64)
    assert len(adapter.layers) == 560
    assert trained(adapter) == 92_897_280 + 560 * 64 == 92_933_120


@pytest.mark.parametrize("method", ["lora", "tlora"])
def test_flux_has_247_layers(method: str) -> None:
    adapter = attach(meta_denoiser("flux"), method, 32)
    names = list(adapter.layers)
    assert len(names) == 247
    assert sum(name.startswith("transformer_blocks.") for name in names) == 19 * 7
    assert sum(name.startswith("single_transformer_blocks.") for name in names) == 38 * 3
    per_layer = 32 * 2 * 3072 + (32 if method == "tlora" else 0)
    assert trained(adapter) == 247 * per_layer


def test_the_masked_sdxl_unet_runs_forward_and_backward_at_1024_pixels() -> None:
    unet = meta_denoiser("sdxl")
    adapter = attach(unet, "tlora", 64)
    answer = unet(
        torch.empty(1, 4, 128, 128, device="meta"),
        torch.empty(1, device="meta"),
        encoder_hidden_states=torch.empty(1, 77, 2048, device="meta"),
        added_cond_kwargs={
            "text_embeds": torch.empty(1, 1280, device="meta"),
            "time_ids": torch.empty(1, 6, device="meta"),
        },
        return_dict=False,
    )[0]
    assert answer.shape == (1, 4, 128, 128)
    answer.mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in adapter.parameters())
