"""A session with a loaded model: what it opens, and how often."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tlora_cli import attach
from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.formats import AdapterInfo, opening, reading
from tlora_cli.sampling.generate import generate
from tlora_cli.sampling.session import Request


@pytest.mark.parametrize("method", ["tlora", "custom_diffusion"])
def test_the_adapter_is_opened_once(
    method: str, tiny_sdxl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = AdapterInfo(placeholder="sks", class_name="dog", base_model=str(tiny_sdxl))
    pipeline = load_pipeline(FAMILIES["sdxl"], Base(str(tiny_sdxl)), parts=("text", "denoiser"))
    file = tmp_path / "adapter.safetensors"
    attach(pipeline, method, 4, info=info).save(file)
    counts = {"opened": 0, "tensors read": 0}

    def counted(name: str, function: Any) -> Any:
        def call(*args: Any) -> Any:
            counts[name] += 1
            return function(*args)

        return call

    monkeypatch.setattr(reading, "open_file", counted("opened", reading.open_file))
    monkeypatch.setattr(opening, "_checked", counted("tensors read", opening._checked))
    settings = {"steps": 1, "width": 64, "height": 64}
    request = Request(file, ["a photo of a V*"], tmp_path / "out", settings=settings)
    [picture] = generate(request, lambda line: None)
    assert picture.exists()
    assert counts == {"opened": 1, "tensors read": 1}
