"""What only a CUDA machine can show: quantized bases, 8-bit optimizer, fp16, xformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import moved, run, same_tensors

needs_gpu = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a CUDA GPU, which this machine lacks"
)

VARIANTS: dict[str, dict[str, Any]] = {
    "bf16": {"train__precision": "bf16"},
    "fp16": {"train__precision": "fp16", "train__max_grad_norm": 1.0},
    "adamw8bit": {"train__precision": "bf16", "train__optimizer": {"name": "adamw8bit"}},
    "nf4": {"train__precision": "bf16", "train__quantization": "nf4"},
    "int8": {"train__precision": "bf16", "train__quantization": "int8"},
    "xformers": {"train__precision": "bf16", "train__attention": "xformers"},
    "checkpointing": {"train__precision": "bf16", "train__gradient_checkpointing": True},
    "offload": {
        "train__precision": "bf16",
        "train__gradient_checkpointing": True,
        "train__offload": True,
    },
    "offload-nf4": {
        "train__precision": "bf16",
        "train__quantization": "nf4",
        "train__gradient_checkpointing": True,
        "train__offload": True,
    },
}


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("base", ["tiny_sdxl", "tiny_flux"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_train_and_resume(
    base: str, variant: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if variant == "xformers":
        pytest.importorskip("xformers", reason="needs xformers")
    if variant in ("nf4", "int8", "adamw8bit", "offload-nf4"):
        pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")
    tiny = request.getfixturevalue(base)
    settings = {**VARIANTS[variant], "train__device": "cuda"}
    outcome = run(tiny, tmp_path, **settings)
    assert outcome.adapter is not None
    assert moved(outcome.adapter)
    longer = run(tiny, tmp_path, resume=True, train__steps=8, **settings)
    assert longer.adapter is not None
    assert longer.step == 8


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("base", ["tiny_sdxl", "tiny_flux"])
def test_blocks_that_take_turns_give_the_same_weights(
    base: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    tiny = request.getfixturevalue(base)
    settings = {
        "train__device": "cuda",
        "train__gradient_checkpointing": True,
        "train__preview": {"every": 2, "prompts": ["a V*"]},
    }
    there = run(tiny, tmp_path / "there", **settings)
    turns = run(tiny, tmp_path / "turns", **settings, train__offload=True)
    assert there.adapter is not None and turns.adapter is not None
    assert same_tensors(there.adapter, turns.adapter)


@pytest.mark.gpu
@needs_gpu
def test_the_first_losses_agree_with_the_cpu(tiny_sdxl: Path, tmp_path: Path) -> None:
    """Random numbers are drawn on the CPU, so both devices train on the same noise."""
    import json

    def losses(device: str) -> list[float]:
        folder = tmp_path / device
        run(tiny_sdxl, folder, train__device=device)
        lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["loss"] for line in lines]

    assert losses("cuda") == pytest.approx(losses("cpu"), rel=1e-3)


@pytest.mark.gpu
@needs_gpu
def test_a_resumed_run_is_the_same_run(tiny_sdxl: Path, tmp_path: Path) -> None:
    whole = run(tiny_sdxl, tmp_path / "a", train__device="cuda")
    run(tiny_sdxl, tmp_path / "b", train__device="cuda", train__steps=4)
    resumed = run(tiny_sdxl, tmp_path / "b", resume=True, train__device="cuda")
    assert whole.adapter is not None
    assert resumed.adapter is not None
    assert same_tensors(whole.adapter, resumed.adapter)
