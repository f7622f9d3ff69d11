"""Learned words: Textual Inversion and Custom Diffusion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tlora_cli import UserError, attach, load_adapter
from tlora_cli.families import FAMILIES, family_of
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.formats import AdapterInfo
from tlora_cli.injection.changes import LearnedWord
from tlora_cli.injection.load import load_words
from tlora_cli.injection.words import ENCODERS

INFO = AdapterInfo(placeholder="sks", class_name="dog")
PROMPT = "a photo of sks dog in the snow"


def encoders(pipeline: Any) -> list[str]:
    """Return the names of a pipeline's text encoders."""
    return [name for name in ENCODERS if hasattr(pipeline, name)]


@pytest.fixture(params=["sdxl", "flux", "sd3"])
def pipeline(request: pytest.FixtureRequest) -> Any:
    folder = request.getfixturevalue(f"tiny_{request.param}")
    loaded = load_pipeline(FAMILIES[request.param], Base(str(folder)), parts=("text", "denoiser"))
    family = FAMILIES[request.param]
    assert encoders(loaded) == [encoder.name for encoder in family.text_encoders]
    for name in encoders(loaded):
        getattr(loaded, name).requires_grad_(False)
    return loaded


def told(pipeline: Any, prompt: str) -> list[Tensor]:
    family = family_of(pipeline)
    return list(family.encode_prompts(pipeline, [prompt]).values())


def test_vectors_stand_where_the_word_stands() -> None:
    word = LearnedWord([7, 8], torch.zeros(3))
    with torch.no_grad():
        word.vectors.copy_(torch.tensor([[1.0, 1, 1], [2, 2, 2]]))
    tokens = torch.tensor([[7, 8, 5, 7, 8], [8, 7, 7, 8, 7], [1, 2, 3, 4, 7]])
    embedded = torch.full((3, 5, 3), -1.0)
    found = word.place(tokens, embedded)[..., 0].tolist()
    assert found == [[1, 2, -1, 1, 2], [-1, -1, 1, 2, -1], [-1, -1, -1, -1, -1]]
    assert (embedded == -1).all(), "the input is not written to"
    assert torch.equal(word.place(tokens[:, :1], embedded[:, :1]), embedded[:, :1])


def test_a_learned_word_changes_its_prompts_only_and_goes_without_a_trace(pipeline: Any) -> None:
    before, other = told(pipeline, PROMPT), told(pipeline, "a photo of a cat")
    adapter = attach(pipeline, "textual_inversion", info=INFO)
    assert list(adapter.layers) == encoders(pipeline)
    with torch.no_grad():
        for tensor in adapter.parameters():
            tensor += 1.0
    after = told(pipeline, PROMPT)
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(
        torch.equal(a, b) for a, b in zip(other, told(pipeline, "a photo of a cat"), strict=True)
    )
    sum(part.square().mean() for part in after).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in adapter.parameters())
    assert all(
        p.grad is None for name in encoders(pipeline) for p in getattr(pipeline, name).parameters()
    )
    adapter.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, told(pipeline, PROMPT), strict=True))


def test_the_start_is_the_class(pipeline: Any) -> None:
    adapter = attach(pipeline, "textual_inversion", info=INFO)
    for name, word in adapter.layers.items():
        table = getattr(pipeline, name).get_input_embeddings().weight
        ids = getattr(pipeline, ENCODERS[name])("dog", add_special_tokens=False).input_ids
        assert isinstance(word, LearnedWord)
        torch.testing.assert_close(word.vectors, table[ids].mean(0).expand_as(word.vectors))


def test_a_word_is_saved_and_loaded(pipeline: Any, tmp_path: Path) -> None:
    method = "textual_inversion" if hasattr(pipeline, "transformer") else "custom_diffusion"
    adapter = attach(pipeline, method, info=INFO)
    with torch.no_grad():
        for tensor in adapter.parameters():
            tensor += torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
    learned, state = told(pipeline, PROMPT), adapter.state_dict()
    adapter.save(tmp_path / "word.safetensors")
    adapter.remove()
    again = load_adapter(pipeline, tmp_path / "word.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(learned, told(pipeline, PROMPT), strict=True))
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(again.state_dict()[key], tensor) for key, tensor in state.items())
    again.remove()
    hooks = load_words(pipeline, tmp_path / "word.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(learned, told(pipeline, PROMPT), strict=True))
    for hook in hooks:
        hook.remove()
    denoiser = pipeline.transformer if hasattr(pipeline, "transformer") else pipeline.unet
    with pytest.raises(UserError, match="load it on the whole pipeline"):
        load_adapter(denoiser, tmp_path / "word.safetensors")


def test_custom_diffusion_trains_the_texts_keys_and_values(tiny_sdxl: Path) -> None:
    loaded = load_pipeline(FAMILIES["sdxl"], Base(str(tiny_sdxl)), parts=("text", "denoiser"))
    adapter = attach(loaded, "custom_diffusion", info=INFO)
    layers = [name for name in adapter.layers if name not in ENCODERS]
    assert layers
    assert all(name.endswith((".attn2.to_k", ".attn2.to_v")) for name in layers)


def test_custom_diffusion_is_not_defined_for_flux(tiny_flux: Path) -> None:
    loaded = load_pipeline(FAMILIES["flux"], Base(str(tiny_flux)), parts=("text", "denoiser"))
    with pytest.raises(UserError, match="flux has none"):
        attach(loaded, "custom_diffusion", info=INFO)


def test_a_word_needs_encoders_and_a_name(tiny_sdxl: Path) -> None:
    loaded = load_pipeline(FAMILIES["sdxl"], Base(str(tiny_sdxl)), parts=("denoiser",))
    with pytest.raises(UserError, match="the pipeline has no text encoders"):
        attach(loaded, "textual_inversion", info=INFO)
    with pytest.raises(UserError, match="a placeholder and a class"):
        attach(loaded, "textual_inversion")
