"""Encoders on pictures with known answers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from clipseg import SIDE, write_tiny_clipseg
from PIL import Image
from transformers import CLIPSegForImageSegmentation, CLIPSegProcessor

from tlora_cli import UserError
from tlora_cli.evaluation.encoders import load_encoder
from tlora_cli.evaluation.masking import GRAY, load_segmenter, paint_over
from tlora_cli.evaluation.scoring import PromptedImage, score
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.suites import contexts

CPU = torch.device("cpu")


PIP = CONCEPTS["pip"]


TRAINING = PIP.scenes()[0]


@pytest.fixture(scope="module")
def encoders() -> dict[str, Any]:
    return {name: load_encoder(name, None, CPU, BUNDLE) for name in ("clip", "dino")}


def looked(group: str, prompt: str, picture: Image.Image) -> PromptedImage:
    return PromptedImage(group, prompt, f"{group}.png", picture)


def test_training_pictures_drawn_again_are_told(encoders: dict[str, Any]) -> None:
    training = draw(TRAINING).image
    other = draw(TRAINING.changed(background="underwater", position="right", accessory="hat")).image
    found = score(
        [
            looked("base", "a photo of a V*", training),
            looked("suite", "a V* under water", training),
            looked("suite", "a V* under water with a hat", other),
        ],
        [training],
        encoders,
        "sks",
        "star",
    )
    for name in encoders:
        assert found.summary[f"{name} IS"] == pytest.approx(1, abs=1e-5)
        assert found.summary[f"{name} copied"] == 0.5
        assert [row.get(f"{name} copied") for row in found.rows] == [None, 1, 0]


def test_right_prompts_score_higher_than_shuffled_ones(encoders: dict[str, Any]) -> None:
    tasks = contexts(PIP, 24, TRAINING)
    pictures = [draw(TRAINING.changed(**task.asked)).image for task in tasks]
    texts = [task.text for task in tasks]
    shuffled = texts[7:] + texts[:7]

    def measured(prompts: list[str]) -> dict[str, float]:
        shown = [looked("suite", *one) for one in zip(prompts, pictures, strict=True)]
        return score(shown, [draw(TRAINING).image], encoders, "sks", "star").summary

    right, wrong = measured(texts), measured(shuffled)
    for way in ("class", "word"):
        assert right[f"clip TS ({way})"] > wrong[f"clip TS ({way})"] + 0.2
    assert right["dino copying"] == wrong["dino copying"], "prompts don't matter there"


def test_words_that_the_scoring_encoder_does_not_read_are_told(encoders: dict[str, Any]) -> None:
    clip = encoders["clip"]
    tokenizer = clip.processor.tokenizer
    limit = tokenizer.model_max_length - 2
    letters = " ".join("a" * limit)
    assert len(tokenizer(letters).input_ids) == limit + 2
    with pytest.warns(UserWarning, match=f"reads {limit} tokens of a prompt, and 1 of 2 have more"):
        cut, _ = clip.texts([f"{letters} cat", "a cat"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.allclose(clip.texts([letters])[0], cut, atol=1e-6)


def test_masks_leave_the_subject_alone(encoders: dict[str, Any]) -> None:
    drawings = [draw(TRAINING), draw(TRAINING.changed(background="underwater"))]
    masks = {d.image.tobytes(): torch.tensor(d.mask.getdata()).reshape(64, 64) for d in drawings}

    def mask(picture: Image.Image) -> Image.Image:
        return paint_over(picture, masks[picture.tobytes()] > 127)

    plain, masked = (
        score([looked("base", "a photo of a V*", drawings[1].image)], [drawings[0].image], encoders,
              "sks", "star", chosen).summary
        for chosen in (None, mask)
    )  # fmt: skip
    for name in encoders:
        assert masked[f"{name} IS (masked)"] > max(0.97, plain[f"{name} IS"])
    gone = mask(drawings[0].image)
    assert gone.getpixel((0, 0)) == GRAY
    inside = masks[drawings[0].image.tobytes()].argmax()
    spot = int(inside % 64), int(inside // 64)
    assert gone.getpixel(spot) == drawings[0].image.getpixel(spot)


def test_clipseg_is_run_as_its_library_runs_it(tmp_path: Path) -> None:
    write_tiny_clipseg(tmp_path)
    model = CLIPSegForImageSegmentation.from_pretrained(tmp_path).eval()
    processor = CLIPSegProcessor.from_pretrained(tmp_path)
    picture = draw(TRAINING).image
    found = load_segmenter(str(tmp_path), CPU).probabilities(picture, "star")
    assert found.shape == (64, 64)
    inputs = processor(text=["star"], images=[picture], padding=True, return_tensors="pt")
    with torch.no_grad():
        raw = model(**inputs).logits.reshape(SIDE, SIDE)
    wanted = torch.nn.functional.interpolate(raw[None, None], (64, 64), mode="bilinear")
    torch.testing.assert_close(found, torch.sigmoid(wanted)[0, 0], rtol=0, atol=1e-5)


def test_dino_sees_the_middle_square_as_its_authors_showed_it(encoders: dict[str, Any]) -> None:
    dino = encoders["dino"]
    picture = draw(TRAINING).image.resize((320, 160))
    dino.crop = (256, 224)
    try:
        found = dino.pictures([picture])
    finally:
        dino.crop = None
    middle = picture.resize((512, 256), Image.Resampling.BICUBIC).crop((144, 16, 368, 240))
    assert torch.equal(found, dino.pictures([middle]))


def test_an_unmade_masking_checkpoint_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="masking checkpoint can't be loaded"):
        load_segmenter(str(tmp_path / "none"), CPU)
