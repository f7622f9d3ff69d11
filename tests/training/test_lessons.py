"""Captions of a training: the recipe's prompts, texts beside pictures, captions left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from training_runs import draw_picture, recipe_values, run, same_tensors

from tlora_cli import UserError
from tlora_cli.families import LatentDistribution
from tlora_cli.formulas.objectives import Epsilon, TimestepSampler
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.sections import ConceptConfig
from tlora_cli.training.batch import Batch, Dropout, Example, draw_batch
from tlora_cli.training.lessons import captions_of, class_caption, with_concept


def concept(**more: object) -> ConceptConfig:
    return ConceptConfig.model_validate({"images": "x.png", "class": "dog", **more})


def test_prompts_are_filled_in() -> None:
    assert captions_of(Path("x.png"), concept()) == ["a photo of sks dog"]
    several = concept(prompts=["{placeholder} {class} at home", "my {class}"])
    assert captions_of(Path("x.png"), several) == ["sks dog at home", "my dog"]


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("V* on a sofa", "sks dog on a sofa"),
        ("a {concept}\n in the snow ", "a sks dog in the snow"),
        ("sks dog on a sofa", "sks dog on a sofa"),
        ("on a sofa, blue light", "sks dog, on a sofa, blue light"),
    ],
)
def test_a_text_beside_a_picture_is_its_caption(tmp_path: Path, text: str, caption: str) -> None:
    (tmp_path / "photo.txt").write_text("\ufeff" + text, encoding="utf-8")
    picture = tmp_path / "photo.jpg"
    assert captions_of(picture, concept(captions=True)) == [caption]
    assert captions_of(picture, concept()) == ["a photo of sks dog"], "it has to be asked for"
    assert captions_of(tmp_path / "other.jpg", concept(captions=True)) == ["a photo of sks dog"]


def test_bad_caption_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "photo.txt").write_bytes(b"caf\xe9")
    with pytest.raises(UserError, match="not UTF-8"):
        captions_of(tmp_path / "photo.jpg", concept(captions=True))
    (tmp_path / "photo.txt").write_text(" \n")
    with pytest.raises(UserError, match="is empty"):
        captions_of(tmp_path / "photo.jpg", concept(captions=True))


def test_the_class_takes_the_concepts_place() -> None:
    assert class_caption("a photo of sks dog, in the snow", concept()) == (
        "a photo of dog, in the snow"
    )
    assert with_concept("on a sofa", "sks dog") == "sks dog, on a sofa"


def example(number: int) -> Example:
    chance = torch.Generator().manual_seed(number)
    latent = torch.randn(4, 4, 4, generator=chance)
    row = {"prompt_embeds": torch.full((1, 3, 2), float(number)), "time_ids": torch.ones(1, 6)}
    classes = {"prompt_embeds": torch.full((1, 3, 2), 100.0 + number)}
    text = str(number)
    return Example(LatentDistribution(latent, torch.ones_like(latent)), row, None, text, classes)


def drawn(index: int, dropout: Dropout | None = None, encode: object = None) -> Batch:
    return draw_batch(
        [example(1), example(2), example(3)],
        [example(9)],
        size=3,
        seed=0,
        index=index,
        objective=Epsilon(torch.ones(1000)),
        timesteps=TimestepSampler(),
        device=torch.device("cpu"),
        encode=encode,  # type: ignore[arg-type]
        dropout=dropout,
    )


def test_captions_are_left_out_as_often_as_asked_and_nothing_else_changes() -> None:
    nothing = {"prompt_embeds": torch.full((1, 3, 2), -1.0)}
    dropout = Dropout(0.3, nothing)
    lost = 0
    for index in range(200):
        plain, with_gaps = drawn(index), drawn(index, dropout)
        assert torch.equal(plain.noise, with_gaps.noise)
        assert torch.equal(plain.timesteps, with_gaps.timesteps)
        assert torch.equal(plain.conditioning["time_ids"], with_gaps.conditioning["time_ids"])
        gone = (with_gaps.conditioning["prompt_embeds"] == -1).all(2).all(1)
        assert not gone[3], "class pictures keep their captions"
        kept = ~gone
        assert torch.equal(
            with_gaps.conditioning["prompt_embeds"][kept], plain.conditioning["prompt_embeds"][kept]
        )
        lost += int(gone.sum())
    assert lost / 600 == pytest.approx(0.3, abs=0.06)


def test_the_classes_texts_follow_the_concepts_samples() -> None:
    batch = drawn(5)
    assert batch.class_conditioning is not None
    concept_rows = batch.conditioning["prompt_embeds"][:3]
    assert torch.equal(batch.class_conditioning["prompt_embeds"], concept_rows + 100)
    assert batch.class_conditioning["time_ids"].shape == (3, 6)


def test_captions_are_encoded_anew_for_methods_that_learn_a_word() -> None:
    def encode(caption: str) -> dict[str, torch.Tensor]:
        return {"prompt_embeds": torch.full((1, 3, 2), 10 * float(caption))}

    batch, plain = drawn(1, encode=encode), drawn(1)
    rows, before = batch.conditioning["prompt_embeds"], plain.conditioning["prompt_embeds"]
    assert torch.equal(rows[:3], 10 * before[:3])
    assert torch.equal(rows[3], before[3])


def test_one_prompt_in_a_list_trains_as_the_same_prompt_alone(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    run(tiny_sdxl, tmp_path / "one", concept__prompt="my {placeholder} {class}")
    run(tiny_sdxl, tmp_path / "list", concept__prompts=["my {placeholder} {class}"])
    results = [tmp_path / name / "run/adapter.safetensors" for name in ("one", "list")]
    assert same_tensors(*results)


def test_several_words_for_one_photo_train_and_resume_to_the_same_bits(
    tiny_sdxl: Path, tmp_path: Path
) -> None:
    changes = {
        "concept__prompts": ["a photo of {placeholder} {class}", "{placeholder} {class} at home"],
        "concept__caption_dropout": 0.4,
        "concept__prior": {"count": 4, "prompts": ["a {class}", "a {class} in the snow"]},
        "train__preserve": {"weight": 0.5},
        "train__batch_size": 2,
    }
    run(tiny_sdxl, tmp_path / "whole", **changes)
    run(tiny_sdxl, tmp_path / "part", **changes, train__steps=3)
    run(tiny_sdxl, tmp_path / "part", resume=True, **changes, train__steps=6)
    results = [tmp_path / name / "run/adapter.safetensors" for name in ("whole", "part")]
    assert same_tensors(*results)


def test_a_caption_file_that_changed_stops_a_resume(tiny_sdxl: Path, tmp_path: Path) -> None:
    draw_picture(tmp_path / "photo.png")
    (tmp_path / "photo.txt").write_text("V* on a sofa")
    run(tiny_sdxl, tmp_path, concept__captions=True, train__steps=2)
    (tmp_path / "photo.txt").write_text("V* on a chair")
    with pytest.raises(UserError, match="changed"):
        run(tiny_sdxl, tmp_path, resume=True, concept__captions=True, train__steps=4)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"concept__prompts": ["a"], "concept__prompt": "b"}, "both are given"),
        ({"concept__prompts": ["a {dog}"]}, "braces may only hold"),
        ({"concept__prompts": [" "]}, "a prompt is empty"),
        ({"concept__caption_dropout": 1.0}, "less than 1"),
        ({"concept__prior": {"prompts": ["a"], "images": "x"}}, "have one prompt"),
        ({"concept__prior": {"prompts": ["a"], "prompt": "x"}}, "both are given"),
    ],
)
def test_words_that_do_not_go_together(
    tiny_sdxl: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, **changes))
