"""Blocks that wait in main memory compute what they compute when all are there, bit for bit.

A CPU has no memory of its own: what is tried is who is where at which time, with weights that are
NaN while they wait. Streams and pinned memory need a GPU (tests/project/test_gpu.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_denoisers import FAMILIES, put
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from training_runs import run

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.gpu_only import GPU_ONLY, GpuOnly
from tlora_cli.foundation.offloading import OffloadedBlocks, offload, repeated_blocks, waits
from tlora_cli.injection import adapter

CPU = torch.device("cpu")


def answers(family: str, *, offloaded: bool, checkpointed: bool = True) -> list[Tensor]:
    """Return answers of two steps, with the base's own between them, and all gradients."""
    make, inputs, scale = FAMILIES[family]
    model = make().requires_grad_(False).train()
    own = put(model, "tlora")
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=chance)
    if checkpointed:
        own.enable_gradient_checkpointing()
    if offloaded:
        offload(model, CPU)
    t = torch.tensor([300.0, 800.0]) / scale
    told = []
    for seed in (0, 1):
        batch = inputs(2, seed)
        answer = model(**batch, timestep=t)[0]
        with torch.no_grad(), own.off():
            told.append(model(**inputs(2, 2), timestep=t)[0])
        (answer**2).mean().backward()
        told.append(answer.detach())
    return [*told, *(p.grad for p in own.parameters() if p.grad is not None)]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_and_gradients_are_the_same_bits(family: str) -> None:
    with_all, in_turns = answers(family, offloaded=False), answers(family, offloaded=True)
    assert len(with_all) == len(in_turns) > 30
    for there, turn in zip(with_all, in_turns, strict=True):
        assert torch.equal(there, turn)


def test_gradients_without_checkpointing_are_refused_not_wrong() -> None:
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        answers("sdxl", offloaded=True, checkpointed=False)


def test_what_waits_is_nan_and_two_blocks_are_there_at_most() -> None:
    make, inputs, _ = FAMILIES["sdxl"]
    model = make().requires_grad_(False)
    blocks = repeated_blocks(model)
    held = [sum(p.nbytes for p in block.parameters()) for block in blocks]
    offloaded = offload(model, CPU)
    assert 2 * max(held) <= offloaded.nbytes < 2.2 * max(held) < sum(held)
    assert all(p.isnan().all() and waits(p) for block in blocks for p in block.parameters())
    others = {id(p) for p in model.parameters()} - {
        id(p) for block in blocks for p in block.parameters()
    }
    assert others and not any(waits(p) for p in model.parameters() if id(p) in others)
    there = []

    def look(module: nn.Module, *_: Any) -> None:
        there.append([not waits(next(block.parameters())) for block in blocks])
        assert there[-1][blocks.index(module)]

    for block in blocks:
        block.register_forward_hook(look)
    with torch.no_grad():
        model(**inputs(1), timestep=torch.tensor([500.0]))
    assert len(there) == len(blocks)
    assert max(sum(one) for one in there) <= 2


class Deep(nn.Module):
    """A module whose blocks are named as transformers names them."""

    _no_split_modules = ("Block",)

    def __init__(self, make: Any) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(make() for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)
        return x


class Block(nn.Module):
    """A norm, whose own weight is kept for the backward pass, and a layer."""

    def __init__(self, layer: Any = None) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(64), layer or nn.Linear(64, 64)
        nn.init.normal_(self.norm.weight, 1, 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(self.norm(x))


def passed(model: nn.Module) -> list[Tensor]:
    x = torch.randn(2, 3, 64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    y = model(x)
    (y**2).sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad]


def test_weights_of_four_bits_take_turns_too() -> None:
    bnb = pytest.importorskip("bitsandbytes", reason="needs bitsandbytes")

    def make() -> Block:
        return Block(bnb.nn.Linear4bit(64, 64, compute_dtype=torch.float32, quant_type="nf4"))

    def model() -> nn.Module:
        torch.manual_seed(0)
        return Deep(make).requires_grad_(False).to(CPU)  # quantizes

    there, turns = model(), model()
    OffloadedBlocks(repeated_blocks(turns), CPU)
    assert turns.blocks[0].layer.weight.dtype is torch.uint8
    for one, other in zip(passed(there), passed(turns), strict=True):
        assert torch.equal(one, other)


def test_text_encoders_take_turns() -> None:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    config = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=4, num_heads=4, vocab_size=50)
    encoder = T5EncoderModel(config).requires_grad_(False).eval()
    tokens = torch.arange(6)[None]
    whole = encoder(tokens).last_hidden_state
    offload(encoder, CPU)
    for _ in range(2):
        assert torch.equal(encoder(tokens).last_hidden_state, whole)


def test_what_can_not_take_turns_is_refused() -> None:
    with pytest.raises(ValueError, match="no blocks"):
        offload(nn.Linear(2, 2), CPU)
    with pytest.raises(ValueError, match="trained"):
        offload(Deep(Block), CPU)
    shared = Deep(Block).requires_grad_(False)
    shared.blocks[1].layer = shared.blocks[0].layer
    with pytest.raises(ValueError, match="share"):
        offload(shared, CPU)


@pytest.mark.parametrize(
    "base", ["tiny_sdxl", pytest.param("tiny_flux", marks=pytest.mark.full)], indirect=True
)
def test_a_run_is_the_same_run(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders, phrases, previews and the result; on a CPU, which a recipe alone may not."""
    settings = {
        "train__gradient_checkpointing": True,
        "train__preview": {"every": 2, "prompts": ["a V*"]},
        "concept__phrases": ["wearing a hat"],
        "train__steps": 3,
    }
    with pytest.raises(UserError, match="offloading needs a CUDA GPU"):
        run(base, tmp_path / "no", **settings, train__offload=True, train__device="auto")
    # What waits can't be folded into, as a CPU does with small layers; that is another rounding.
    monkeypatch.setattr(adapter, "can_fold", lambda *_, **__: False)
    monkeypatch.setitem(GPU_ONLY, "train.offload", GpuOnly("never", "", "", ""))
    plain = run(base, tmp_path / "plain", **settings)
    turns = run(base, tmp_path / "turns", **settings, train__offload=True)
    assert plain.adapter is not None and turns.adapter is not None
    one, other = load_file(plain.adapter), load_file(turns.adapter)
    assert one.keys() == other.keys()
    for key, tensor in one.items():  # weights that lie elsewhere in memory may round otherwise
        assert torch.allclose(tensor, other[key], rtol=0, atol=1e-6)


@pytest.fixture
def base(request: pytest.FixtureRequest) -> Path:
    """One of the small pipelines."""
    path: Path = request.getfixturevalue(request.param)
    return path
