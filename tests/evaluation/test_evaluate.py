"""`tlora evaluate`: metrics with known answers, what is drawn, and through the command line."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize
from training_runs import tlora
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    CLIPSegProcessor,
    CLIPTokenizer,
    ViTImageProcessor,
)

from tlora_cli import UserError
from tlora_cli.cli.app import main
from tlora_cli.evaluation import metrics
from tlora_cli.evaluation.encoders import load_encoder
from tlora_cli.evaluation.image_requests import Counts, requests_of_suite
from tlora_cli.evaluation.masking import GRAY, Segmenter, paint_over
from tlora_cli.evaluation.scoring import PromptedImage, score
from tlora_cli.evaluation.suites import SUITES, read_prompts, suite_for
from tlora_cli.foundation.bundled import model_folder
from tlora_cli.recipe.models import Recipe
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.factors import draw_scene
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.suites import contexts
from tlora_cli.training.loop import train

CPU = torch.device("cpu")
PIP = CONCEPTS["pip"]
TRAINING = PIP.scenes()[0]


def features(*rows: list[float]) -> torch.Tensor:
    return normalize(torch.tensor(rows).float(), dim=-1)


# --- metrics --------------------------------------------------------------------------------------


def test_identical_pictures_score_one() -> None:
    one = features([1.0, 2.0, 3.0])
    same = one.expand(4, 3)
    assert metrics.image_similarity(same, one) == pytest.approx(1)
    nearest, share = metrics.copying(same, one)
    assert (nearest, share) == pytest.approx((1, 1))
    assert metrics.diversity(same) == pytest.approx(1, abs=1e-5)
    assert metrics.drift(same, same) == pytest.approx(0, abs=1e-6)


def test_metrics_of_hand_made_features() -> None:
    drawn = features([1, 0], [0, 1], [1, 1])
    real = features([1, 0], [3, 4])
    root = math.sqrt(0.5)
    pairs = [1, 0.6, 0, 0.8, root, 1.4 * root]
    assert metrics.image_similarity(drawn, real) == pytest.approx(sum(pairs) / 6)
    assert metrics.text_similarity(drawn[:2], real) == pytest.approx((1 + 0.8) / 2)
    nearest, share = metrics.copying(drawn, real)
    assert nearest == pytest.approx((1 + 0.8 + 1.4 * root) / 3)
    assert share == pytest.approx(2 / 3)  # 1 and 0.99 count, 0.8 doesn't
    assert metrics.drift(drawn[:2], real) == pytest.approx(1 - (1 + 0.8) / 2)


def test_diversity_counts_what_is_orthogonal() -> None:
    assert metrics.diversity(torch.eye(5)) == pytest.approx(5)
    assert metrics.diversity(torch.eye(2).repeat(3, 1)) == pytest.approx(2, abs=1e-5)


# --- pictures with known answers ------------------------------------------------------------------


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
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2,
            "num_attention_heads": 2, "max_position_embeddings": 40,
            "vocab_size": len(CLIPTokenizer.from_pretrained(model_folder("toy-clip")))}  # fmt: skip
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 3,
              "num_attention_heads": 2, "image_size": 32, "patch_size": 8}  # fmt: skip
    config = CLIPSegConfig(
        text_config=text, vision_config=vision, projection_dim=16, reduce_dim=8,
        extract_layers=[0, 1], decoder_num_attention_heads=2, decoder_intermediate_size=16,
    )  # fmt: skip
    torch.manual_seed(0)
    model = CLIPSegForImageSegmentation(config).eval()
    processor = CLIPSegProcessor(
        ViTImageProcessor(size={"height": 32, "width": 32}),
        CLIPTokenizer.from_pretrained(model_folder("toy-clip")),
    )
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    picture = draw(TRAINING).image
    found = Segmenter(str(tmp_path), CPU).probabilities(picture, "star")
    assert found.shape == (64, 64)
    inputs = processor(text=["star"], images=[picture], padding=True, return_tensors="pt")
    with torch.no_grad():
        raw = model(**inputs).logits.reshape(32, 32)
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
        Segmenter(str(tmp_path / "none"), CPU)


# --- prompts --------------------------------------------------------------------------------------


def test_our_suites_have_25_contextual_and_6_complex_prompts() -> None:
    for suite in SUITES.values():
        assert (len(suite.contextual), len(suite.complex)) == (25, 6)
        assert len(set(suite.prompts)) == 31
        assert all(prompt.count("V*") == 1 for prompt in suite.prompts)
    assert suite_for("golden dog") is SUITES["live"]
    assert suite_for("toy car") is SUITES["object"]


def test_any_list_of_prompts_can_be_read(tmp_path: Path) -> None:
    file = tmp_path / "prompts.json"
    file.write_text(json.dumps({"source": "words", "one": ["a {0} at sea"], "two": ["V* up"]}))
    assert read_prompts(file) == ("a V* at sea", "V* up")
    assert read_prompts(file, ["two"]) == ("V* up",)
    listed = tmp_path / "prompts.yaml"
    listed.write_text("- a {concept} in snow\n- a {concept} in snow\n")
    assert read_prompts(listed) == ("a V* in snow",)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.yaml", "- a dog in the snow", "names no concept"),
        ("a.yaml", "- 3", "must be text"),
        ("a.yaml", "[", "damaged"),
        ("a.json", '{"one": ["a V*"', "damaged"),
        ("a.yaml", "words: none", "no list of prompts"),
        ("a.yaml", "[]", "empty"),
        ("a.yaml", None, "there is no such prompts file"),
    ],
)
def test_bad_prompt_files(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=message):
        read_prompts(file)


def test_an_unknown_list_of_a_file_names_the_known_ones(tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("live: [a V*]\nobject: [the V*]\n")
    with pytest.raises(UserError, match="live"):
        read_prompts(file, ["lives"])


def test_a_suite_asks_as_the_paper_does() -> None:
    asks = requests_of_suite(["a V* at sea", "a V* in snow"], Counts(5, 15, 2, seed=3))
    groups = [ask.group for ask in asks]
    assert [groups.count(name) for name in ("base", "suite", "free", "free_without")] == [
        15, 10, 16, 16,
    ]  # fmt: skip
    assert [ask.seed for ask in asks if ask.group == "base"] == list(range(3, 18))
    pairs = [[(a.prompt, a.seed) for a in asks if a.group == g] for g in ("free", "free_without")]
    assert pairs[0] == pairs[1], "drift compares the same seeds"


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an adapter of the built-in world, trained for a few steps, that draws in two."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    recipe = {
        "family": "sdxl",
        "base": "toy-sdxl",
        "concept": {"images": "toy:pip/1", "class": "star"},
        "train": {"steps": 3},
        "sampling": {"steps": 2},
        "output": {"dir": str(folder), "trackers": []},
    }
    train(Recipe.model_validate(recipe))
    return folder / "adapter.safetensors"


def test_an_adapter_is_scored_and_a_broken_run_goes_on(adapter: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = tlora("evaluate", "--adapter", adapter, "--base-count", 2, "--output", whole)
    assert done.returncode == 0, done.stderr
    results = json.loads((whole / "results.json").read_text())["results"]
    assert set(results) >= {
        *("TS*", "ID*", "ID* (base prompt)", "leak", "copy", "clip IS", "dino IS"),
        *("clip TS (class)", "clip TS (word)", "clip drift", "dino copying"),
    }
    assert all(name in done.stdout for name in results)
    files = sorted(file.relative_to(whole) for file in whole.rglob("*.png"))
    assert len(files) == 2 + 50 + 16 + 16

    again = tlora("evaluate", "--adapter", adapter, "--base-count", 2, "--output", broken)
    assert again.returncode == 0
    for file in random.Random(0).sample(files, 7):
        (broken / file).unlink()
    half = broken / random.Random(1).choice([f for f in files if (broken / f).exists()])
    half.write_bytes(half.read_bytes()[:300])
    (broken / "results.json").write_text('{"results": {"TS*": 0.9')
    last = tlora("evaluate", "--adapter", adapter, "--base-count", 2, "--output", broken)
    assert last.returncode == 0, last.stderr
    for name in ("results.json", "pictures.csv", "results.md"):
        assert (broken / name).read_text() == (whole / name).read_text()
    for file in files:
        assert Image.open(broken / file).tobytes() == Image.open(whole / file).tobytes(), file

    other = tlora("evaluate", "--adapter", adapter, "--base-count", 3, "--output", broken)
    assert other.returncode == 2
    assert "holds another evaluation" in other.stderr


def test_a_folder_of_pictures_is_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures, said = tmp_path / "pictures", {}
    pictures.mkdir()
    draw(TRAINING).image.save(pictures / "copy.png")
    said["copy.png"] = "a photo of a sks star"
    rng = random.Random(0)
    for number in range(4):
        draw(draw_scene(rng, None)).image.save(pictures / f"{number}.png")
        said[f"{number}.png"] = "a sks star somewhere else"
    table = tmp_path / "prompts.json"
    table.write_text(json.dumps(said))
    arguments = [
        *("tlora", "evaluate", "--pictures", str(pictures), "--prompts-of", str(table)),
        *("--images", "toy:pip/1", "--class", "star", "--mask", "none"),
        *("--metric", "clip=toy-clip", "--metric", "dino=toy-vit"),
        *("--output", str(tmp_path / "scores")),
    ]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 0
    results = json.loads((tmp_path / "scores" / "results.json").read_text())["results"]
    assert results["clip IS"] == pytest.approx(1, abs=1e-3)
    assert results["clip copied"] == 0
    assert "clip diversity" in results


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name an adapter or a folder"),
        (["--adapter", "none.safetensors"], "none.safetensors"),
        (["--adapter", "{adapter}", "--metric", "clop"], "clip"),
        (["--adapter", "{adapter}", "--metric", "clip=/none"], "clip checkpoint can't be loaded"),
        (["--adapter", "{adapter}", "--suite", "pets"], "live"),
        (
            ["--adapter", "{adapter}", "--prompts-file", "none.yaml"],
            "there is no such prompts file",
        ),
        (["--adapter", "{adapter}", "--output", "{full}"], "is left as it is"),
        (["--adapter", "{adapter}", "--images", "toy:pop/1"], "pip"),
        (["--pictures", "{full}", "--class", "star", "--images", "toy:pip/1"], "no PNG files"),
        (["--pictures", "{full}"], "--class"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str],
    message: str,
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("keep me")
    filled = [one.format(adapter=adapter, full=full) for one in arguments]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tlora", "evaluate", *filled])
    assert main() == 2
    assert message in capsys.readouterr().err
    assert (full / "mine.txt").read_text() == "keep me"


def test_pictures_without_prompts_or_broken_ones_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    draw(TRAINING).image.save(pictures / "a.png")
    arguments = ["--pictures", str(pictures), "--class", "star", "--images", "toy:pip/1"]
    monkeypatch.setattr("sys.argv", ["tlora", "evaluate", *arguments])
    assert main() == 2
    assert "prompt is not known" in capsys.readouterr().err
    (pictures / "a.png").write_bytes(b"no picture")
    assert main() == 2
    assert "can't be read" in capsys.readouterr().err
