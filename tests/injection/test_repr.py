"""An adapter says in a line what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusers import UNet2DConditionModel

from tlora_cli import RankSchedule, attach, load_adapter
from tlora_cli.formats import AdapterInfo


@pytest.fixture
def unet(tiny_sdxl: Path) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(tiny_sdxl, subfolder="unet")


def test_method_family_rank_schedule_and_concept(
    unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    info = AdapterInfo(placeholder="sks", class_name="dog")
    adapter = attach(unet, "tlora", 8, 3, info=info)
    count = len(adapter.layers)
    said = f'tlora on SDXL, rank 8 (linear, least 3), "sks dog", {count} layers'
    assert repr(adapter) == f"<Adapter: {said}>"
    adapter.scale = 0.5
    adapter.save(tmp_path / "a.safetensors")
    adapter.remove()
    assert repr(adapter) == f"<Adapter: {said}, scale 0.5, removed>"
    assert repr(load_adapter(unet, tmp_path / "a.safetensors")) == f"<Adapter: {said}>"


def test_without_a_least_rank(unet: UNet2DConditionModel) -> None:
    adapter = attach(unet, "lora", 4)
    assert repr(adapter).startswith("<Adapter: lora on SDXL, rank 4 (constant), ")
    adapter.remove()
    steps = RankSchedule(4, 4, kind="step", points=[(0, 4), (500, 1)])
    adapter = attach(unet, "tlora", 4, schedule=steps)
    assert "rank 4 (step), " in repr(adapter)
    adapter.remove()
    assert repr(attach(unet, "oft", blocks=4)).startswith("<Adapter: oft on SDXL, 4 blocks, ")
