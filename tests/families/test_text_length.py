"""Words that the text encoders cut off: told where they are cut, and refused where they matter.

What is cut is held against the encoders themselves: a text without its cut end gives the same
embeddings, and one that is shorter by one more token doesn't.
"""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from tlora_cli.families import FAMILIES
from tlora_cli.families.loading import Base, load_pipeline
from tlora_cli.families.text_length import check_lengths, cuts, local_tokenizers
from tlora_cli.foundation.errors import UserError

NAMES = ("sks dog", "sks")


@pytest.fixture(scope="module")
def sdxl(tiny_sdxl: Path) -> Any:
    return load_pipeline(FAMILIES["sdxl"], Base(str(tiny_sdxl)), parts=("text",))


@pytest.fixture(scope="module")
def flux(tiny_flux: Path) -> Any:
    return load_pipeline(FAMILIES["flux"], Base(str(tiny_flux)), parts=("text",))


@torch.no_grad()
def embedded(family: str, pipeline: Any, text: str) -> list[torch.Tensor]:
    return list(FAMILIES[family].encode_prompts(pipeline, [text]).values())


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(one, other) for one, other in zip(a, b, strict=True)]


def test_sdxl_reads_75_tokens_and_no_more(sdxl: Any) -> None:
    text = "a " * 74 + "b c d"  # one token a letter
    first, second = cuts(FAMILIES["sdxl"], sdxl, text)
    assert (first.limit, first.tokens, first.rest) == (75, 77, "c d")
    assert (second.encoder, second.rest) == ("text_encoder_2", "c d")
    read, shorter = "a " * 74 + "b", "a " * 74
    assert all(same(embedded("sdxl", sdxl, text), embedded("sdxl", sdxl, read)))
    assert not any(same(embedded("sdxl", sdxl, text), embedded("sdxl", sdxl, shorter)))
    assert not list(cuts(FAMILIES["sdxl"], sdxl, read))


def test_flux_reads_more_with_t5_than_with_clip(flux: Any) -> None:
    family = FAMILIES["flux"]
    text = "a " * 80 + "b"
    [cut] = cuts(family, flux, text)
    assert (cut.encoder, cut.limit, cut.tokens, cut.whole) == ("text_encoder", 75, 81, False)
    without = same(embedded("flux", flux, text), embedded("flux", flux, "a " * 75))
    assert without == [False, True], "T5's embeddings change, CLIP's pooled one doesn't"
    with pytest.warns(UserWarning, match=r"text_encoder reads 75 \(the other encoder .* more\)"):
        check_lengths(family, flux, ["a " * 80 + "sks dog"], NAMES)


def test_flux_stops_where_t5_reads_no_more(flux: Any) -> None:
    with pytest.raises(UserError) as refused:
        check_lengths(FAMILIES["flux"], flux, ["a " * 520 + "sks dog"], NAMES)
    assert "'sks dog' stands behind the 511 tokens that FLUX reads" in refused.value.what


LOST = {
    "the whole name": ("a " * 75 + "sks dog", True),
    "a part of it, so that the rare word stays": ("a " * 71 + "sks dog", False),
    "the second of two": ("sks dog " + "a " * 75 + "sks dog", False),
    "something else": ("a sks dog " + "b " * 80, False),
    "in capitals, before a sign": ("a " * 75 + "SKS Dog, b", True),
    "no name in it": ("a " * 80, False),
}


@pytest.mark.parametrize(("text", "stops"), LOST.values(), ids=LOST)
def test_it_stops_where_no_name_is_read(text: str, stops: bool, sdxl: Any) -> None:
    if stops:
        with pytest.raises(UserError, match="so it is cut off") as refused:
            check_lengths(FAMILIES["sdxl"], sdxl, [text], NAMES)
        assert "near the beginning" in refused.value.do
    with pytest.warns(UserWarning, match=r"and text_encoder reads 75; it does not read: ") as told:
        check_lengths(FAMILIES["sdxl"], sdxl, [text], NAMES, stop=False)
    assert len(told) == 1


def test_many_are_told_in_one_line_and_short_ones_not_at_all(sdxl: Any) -> None:
    with pytest.warns(UserWarning, match=r"has 76 tokens \(2 more are too long\)") as told:
        check_lengths(FAMILIES["sdxl"], sdxl, [f"{'a ' * 75}{end}" for end in "xyz"] + ["a"])
    assert len(told) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_lengths(FAMILIES["sdxl"], sdxl, ["a " * 75, "a sks dog", ""], NAMES)


def test_tokenizers_of_a_folder_need_no_weights(tiny_flux: Path, tmp_path: Path) -> None:
    family = FAMILIES["flux"]
    text = "a " * 520 + "sks dog"
    with pytest.raises(UserError, match="behind the 511 tokens"):
        check_lengths(family, local_tokenizers(family, tiny_flux), [text], NAMES)
    check_lengths(family, local_tokenizers(family, tmp_path), [text], NAMES)  # none are there


def longer(source: Path, folder: Path, length: float) -> Path:
    """Copy a base, with tokenizers that say another length."""
    base = folder / source.name
    shutil.copytree(source, base)
    for file in base.glob("tokenizer*/tokenizer_config.json"):
        values = json.loads(file.read_text())
        if values["model_max_length"] == 77:  # CLIP's
            file.write_text(json.dumps({**values, "model_max_length": length}))
    return base


@pytest.mark.parametrize("length", [8192, 1e30])
@pytest.mark.parametrize("base", ["tiny_sdxl", "tiny_flux"])
def test_a_tokenizer_that_says_more_than_its_encoder_reads(
    base: str, length: float, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tiny = request.getfixturevalue(base)
    family = FAMILIES["flux" if "flux" in base else "sdxl"]
    wrong = longer(tiny, tmp_path, length)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        pipeline = load_pipeline(family, Base(str(wrong)), parts=("text",))
    notes = [str(one.message) for one in told if "model_max_length" in str(one.message)]
    if length == 8192:
        assert notes[0] == (
            "the base's tokenizer says model_max_length: 8192, but its text_encoder reads 77 "
            "tokens; 77 are used"
        )
    assert len(notes) == (0 if length > 8192 else 1 if family.name == "flux" else 2)
    right = load_pipeline(family, Base(str(tiny)), parts=("text",))
    found = (embedded(family.name, one, "a photo of sks dog") for one in (pipeline, right))
    assert all(same(*found))
    here = local_tokenizers(family, wrong)
    assert here.tokenizer.model_max_length == 77
