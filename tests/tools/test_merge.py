"""`tlora merge`: a plain model answers as the base with the adapter on it."""

from __future__ import annotations

import errno
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_files import command
from diffusers import (
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from reference_runs import difference
from safetensors.torch import load_file, save_file
from single_file import write_sdxl
from torch import Tensor, nn

from tlora_cli import RankSchedule, UserError, attach
from tlora_cli.families.shapes import random_conditioning
from tlora_cli.formats import AdapterInfo, AdapterWeights, tlora_file
from tlora_cli.methods import METHODS

KINDS: dict[str, Any] = {
    "sdxl": (StableDiffusionXLPipeline, UNet2DConditionModel, "unet"),
    "flux": (FluxPipeline, FluxTransformer2DModel, "transformer"),
}
WORDS = ("custom_diffusion", "textual_inversion")
CASES = [("sdxl", method) for method in METHODS] + [
    ("flux", method) for method in ("tlora", "lora", "oft", "gsoft_double", "svdiff")
]


@pytest.fixture
def folders(tiny_sdxl: Path, tiny_flux: Path) -> dict[str, Path]:
    return {"sdxl": tiny_sdxl, "flux": tiny_flux}


def answer(family: str, denoiser: Any, t: float) -> Tensor:
    """Return the denoiser's answer to random inputs, the same for every call."""
    torch.manual_seed(5)
    text = random_conditioning(family, denoiser, 1, tokens=7)
    with torch.no_grad():
        if family == "sdxl":
            states = text.pop("prompt_embeds")
            return denoiser(torch.randn(1, 4, 8, 8), t, states, added_cond_kwargs=text).sample
        return denoiser(
            hidden_states=torch.randn(1, 16, 64),
            timestep=torch.tensor([t / 1000]),
            guidance=torch.tensor([3.5]),
            pooled_projections=text["pooled_projections"],
            encoder_hidden_states=text["prompt_embeds"],
            txt_ids=torch.zeros(7, 3),
            img_ids=torch.zeros(16, 3),
        ).sample


def trained(
    family: str, method: str, folder: Path, file: Path, t: float = 0.0, size: float = 0.05
) -> tuple[Tensor, Tensor]:
    """Write an adapter whose parameters all moved; return the base's answer at t and its own."""
    pipeline = KINDS[family][0].from_pretrained(folder)
    denoiser = getattr(pipeline, KINDS[family][2])
    bare = answer(family, denoiser, t)
    options: dict[str, Any] = {"blocks": 2}
    if METHODS[method].size == "rank":
        options = {"rank": 4, **({"min_rank": 2} if METHODS[method].masked else {})}
    info = AdapterInfo(base_model=str(folder), placeholder="the", class_name="dog")
    adapter = attach(pipeline, method, info=info, **options)
    chance = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=chance))
    adapter.save(file)
    return bare, answer(family, denoiser, t)


def stock(family: str, folder: Path) -> nn.Module:
    _, kind, part = KINDS[family]
    model: nn.Module = kind.from_pretrained(folder, subfolder=part)
    return model


@pytest.mark.parametrize(("family", "method"), CASES)
def test_the_merged_model_answers_as_the_adapter_does(
    family: str, method: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    """At t = 0, where the mask is full."""
    file, output = tmp_path / "a.safetensors", tmp_path / "merged"
    bare, expected = trained(family, method, folders[family], file)
    said = command("merge", file, "--output", output)
    assert ("the rank schedule is gone: 4 ranks act" in said) == METHODS[method].masked
    assert ("merged at rank 4 of 4" in said) == (METHODS[method].size == "rank")
    found = answer(family, stock(family, output), 0.0)
    assert difference(found, expected) < 1e-5
    if method != "textual_inversion":
        assert difference(bare, expected) > 1e-3
    for part in ("vae", "tokenizer", "scheduler", *(() if method in WORDS else ("text_encoder",))):
        for one in (folders[family] / part).iterdir():
            assert (output / part / one.name).read_bytes() == one.read_bytes()


@pytest.mark.parametrize("method", WORDS)
def test_a_learned_word_is_in_the_text_encoders(
    method: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    file, output = tmp_path / "a.safetensors", tmp_path / "merged"
    trained("sdxl", method, folders["sdxl"], file)
    assert "the word the is in the text encoders' embeddings" in command(
        "merge", file, "--output", output
    )
    base = StableDiffusionXLPipeline.from_pretrained(folders["sdxl"])
    merged = StableDiffusionXLPipeline.from_pretrained(output)
    parts = load_file(file)
    for encoder, tokenizer in (("text_encoder", "tokenizer"), ("text_encoder_2", "tokenizer_2")):
        [token] = getattr(base, tokenizer)("the", add_special_tokens=False).input_ids
        expected = getattr(base, encoder).get_input_embeddings().weight.detach().clone()
        expected[token] = parts[f"word.{encoder}.tlora.vectors"][0]
        assert torch.equal(getattr(merged, encoder).get_input_embeddings().weight, expected)
    with pytest.raises(UserError, match="belongs to the text encoders; a file of the denoiser"):
        command("merge", file, "--output", tmp_path / "merged.safetensors")


@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_the_least_rank_is_that_of_the_noisiest_timestep(
    family: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    file, output = tmp_path / "a.safetensors", tmp_path / "merged.safetensors"
    _, expected = trained(family, "tlora", folders[family], file, t=999.0)
    said = command("merge", file, "--output", output, "--rank", "2")
    assert "merged at rank 2 of 4" in said
    model = stock(family, folders[family])
    model.load_state_dict(load_file(output))
    assert difference(answer(family, model, 999.0), expected) < 1e-5
    with pytest.raises(UserError, match="--rank 5 is above the adapter's rank 4"):
        command("merge", file, "--output", tmp_path / "b", "--rank", "5")


def test_fp16_is_rounded_once_and_says_what_that_takes(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    for size, name in ((1e-1, "large"), (3e-4, "small")):
        file = tmp_path / f"{name}.safetensors"
        trained("sdxl", "lora", folders["sdxl"], file, size=size)
        fine, coarse = (tmp_path / f"{name}-{kind}.safetensors" for kind in ("fp32", "fp16"))
        command("merge", file, "--output", fine)
        said = command("merge", file, "--output", coarse, "--dtype", "fp16")
        base = stock("sdxl", folders["sdxl"]).state_dict()
        exact, rounded = load_file(fine), load_file(coarse)
        assert exact.keys() == rounded.keys() == base.keys()
        lost = moved = 0.0
        for key, weight in exact.items():
            assert torch.equal(rounded[key], weight.half()), key
            change = (weight - base[key]).double()
            kept = rounded[key].double() - base[key].half().double()
            lost += float((kept - change).square().sum())
            moved += float(change.square().sum())
        share = 100 * (lost / moved) ** 0.5
        assert f"rounding to fp16 takes {share:.2g}% of the update" in said
        assert (share > 1) == (name == "small")


def test_a_schedule_that_is_not_known_does_not_matter(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    """A LyCORIS file that doesn't say its schedule: all ranks are merged all the same."""
    ours, theirs = tmp_path / "ours.safetensors", tmp_path / "lycoris.safetensors"
    _, expected = trained("sdxl", "tlora", folders["sdxl"], ours)
    base = ("--base", folders["sdxl"])
    command("convert", ours, "--to", "lycoris", "--output", theirs, *base)
    save_file(load_file(theirs), theirs, {"format": "pt"})  # no header that says it
    with pytest.raises(UserError, match="does not say which base model"):
        command("merge", theirs, "--output", tmp_path / "merged")
    said = command("merge", theirs, "--output", tmp_path / "merged", *base)
    assert "whatever its rank schedule was, it is gone" in said
    assert difference(answer("sdxl", stock("sdxl", tmp_path / "merged"), 0.0), expected) < 1e-5


def test_mistakes_cost_nothing(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lora, oft, word = (tmp_path / f"{name}.safetensors" for name in ("lora", "oft", "word"))
    trained("sdxl", "lora", folders["sdxl"], lora)
    trained("sdxl", "oft", folders["sdxl"], oft)
    info = AdapterInfo(method="textual_inversion", placeholder="sks", class_name="dog")
    vectors = {e: {"vectors": torch.zeros(n, w)} for e, n, w in
               (("text_encoder", 3, 32), ("text_encoder_2", 3, 48))}  # fmt: skip
    weights = AdapterWeights({}, 1, None, "sdxl", info, vectors)
    tlora_file.write(word, weights, timestep_scale=1.0)
    before = sorted(tmp_path.iterdir())
    new, base = tmp_path / "new", ("--base", folders["sdxl"])
    attempts: list[tuple[tuple[str | Path, ...], str]] = [
        ((lora, "--output", new, "--dtype", "bf16"), "bf16 keeps 8 bits of a number"),
        ((lora, "--output", new, "--dtype", "fp8"), "--dtype fp8 is not known"),
        ((lora, "--output", tmp_path), "the output folder exists already"),
        ((lora, "--output", oft), "the output file exists already"),
        ((lora, "--output", tmp_path / "a.ckpt"), "must be a folder, or end in .safetensors"),
        ((lora, "--output", new, "--base", folders["flux"]), "not a sdxl model"),
        ((oft, "--output", new, "--rank", "2"), "oft has no ranks to choose from"),
        ((word, "--output", new, *base), "the learned word sks is 3 tokens"),
    ]
    for arguments, message in attempts:
        with pytest.raises(UserError) as caught:
            command("merge", *arguments)
        assert message in str(caught.value)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
    with pytest.raises(UserError, match="not enough disk space for the merged model"):
        command("merge", lora, "--output", new)
    assert sorted(tmp_path.iterdir()) == before


def test_a_single_file_base_becomes_a_folder(folders: dict[str, Path], tmp_path: Path) -> None:
    file, single = tmp_path / "a.safetensors", tmp_path / "base.safetensors"
    _, expected = trained("sdxl", "ortho_lora", folders["sdxl"], file)
    write_sdxl(folders["sdxl"], single)
    base = ("--base", single, "--base-config", folders["sdxl"])
    command("merge", file, *base, "--output", tmp_path / "merged", "--dtype", "fp16")
    merged = StableDiffusionXLPipeline.from_pretrained(tmp_path / "merged")
    assert difference(answer("sdxl", merged.unet, 0.0), expected) < 5e-3
    original = StableDiffusionXLPipeline.from_pretrained(folders["sdxl"])
    for part, change in (("vae", torch.Tensor.float), ("text_encoder_2", torch.Tensor.half)):
        found, wanted = (getattr(p, part).state_dict() for p in (merged, original))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], change(wanted[key]).float()) for key in wanted)


def test_what_a_marked_file_predicts_is_kept_in_a_folder_and_said_for_a_file(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    file, single = tmp_path / "a.safetensors", tmp_path / "base.safetensors"
    trained("sdxl", "lora", folders["sdxl"], file)
    write_sdxl(folders["sdxl"], single)
    marks = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
    save_file(load_file(single) | marks, single)
    base = ("--base", single, "--base-config", folders["sdxl"])
    command("merge", file, *base, "--output", tmp_path / "merged")
    scheduler = StableDiffusionXLPipeline.from_pretrained(tmp_path / "merged").scheduler.config
    assert scheduler.prediction_type == "v_prediction"
    assert scheduler.rescale_betas_zero_snr
    told = command("merge", file, *base, "--output", tmp_path / "merged.SAFETENSORS")
    assert "the file can't say that the model predicts v_prediction" in told


@pytest.mark.parametrize("output", ["merged", "merged.safetensors"])
def test_a_disk_that_fills_up_leaves_nothing(
    output: str, folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.safetensors"
    trained("sdxl", "lora", folders["sdxl"], file)

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tlora_cli.tools.merge.save_file", full)
    monkeypatch.setattr("tlora_cli.tools.merge.shutil.copytree", full)
    with pytest.raises(UserError, match=f"cannot write {output}: No space left on device"):
        command("merge", file, "--output", tmp_path / output)
    assert list(tmp_path.iterdir()) == [file]


def test_numbers_beyond_fp16_are_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    name = "mid_block.attentions.0.proj_in"
    layers = {name: (torch.full((1, 48), 300.0), torch.full((48, 1), 300.0))}
    schedule = RankSchedule(1, 1, kind="constant")
    weights = AdapterWeights(layers, 1, schedule, "sdxl", AdapterInfo(method="lora"))
    tlora_file.write(file, weights, timestep_scale=1.0)
    arguments = (file, "--base", folders["sdxl"], "--output", tmp_path / "merged")
    with pytest.raises(UserError, match=f"{name}.weight has numbers too large for fp16"):
        command("merge", *arguments, "--dtype", "fp16")
    assert "merged at rank 1 of 1, 1 layers" in command("merge", *arguments)
