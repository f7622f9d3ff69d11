"""A word that is learned beside an adapter: `train.word_lr`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionXLPipeline
from safetensors.torch import load_file, save_file
from training_runs import moved, recipe_values, run, same_adapter, same_tensors

from tlora_cli import UserError, attach, load_adapter
from tlora_cli.formats import AdapterInfo, open_adapter, read_adapter
from tlora_cli.formats.comfyui.node import adapter_file
from tlora_cli.recipe.models import Recipe
from tlora_cli.sampling.joining import check_joinable

ENCODERS = ("text_encoder", "text_encoder_2")
WORD = {"train__word_lr": 0.1, "concept__placeholder": "the"}  # one token of the tiny tokenizer


def words_of(file: Path) -> dict[str, torch.Tensor]:
    return {name: parts["vectors"] for name, parts in read_adapter(file, ()).words.items()}


@pytest.mark.parametrize("base", ["tiny_sdxl", "tiny_flux"])
@pytest.mark.parametrize("method", ["lora", "tlora"])
def test_word_and_adapter_are_trained_and_resume_to_the_same_bits(
    base: str, method: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tiny = request.getfixturevalue(base)
    changes = {**WORD, "adapter": {"method": method, "rank": 4}}
    run(tiny, tmp_path / "whole", **changes)
    run(tiny, tmp_path / "part", **changes, train__steps=4)
    run(tiny, tmp_path / "part", resume=True, **changes, train__steps=6)
    whole, part = (tmp_path / name / "run/adapter.safetensors" for name in ("whole", "part"))
    assert same_tensors(whole, part)
    assert same_adapter(whole, tmp_path / "whole/run/checkpoints/checkpoint-000006")
    assert moved(whole)
    early = tmp_path / "whole/run/checkpoints/checkpoint-000004"
    for name, vectors in words_of(whole).items():
        assert not torch.equal(vectors, words_of(early)[name])


def test_a_run_without_it_is_what_it_was(tiny_sdxl: Path, tmp_path: Path) -> None:
    run(tiny_sdxl, tmp_path)
    file = tmp_path / "run/adapter.safetensors"
    assert words_of(file) == {}
    assert all("lora_" in key for key in load_file(file))


def test_it_has_a_learning_rate_of_its_own(tiny_sdxl: Path) -> None:
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    info = AdapterInfo(placeholder="the", class_name="dog")
    adapter = attach(pipeline, "tlora", 4, info=info, word_rate=30.0)
    rates = {group["rate"]: group["params"] for group in adapter.parameter_groups()}
    assert set(rates) == {1.0, 30.0}
    assert {tuple(p.shape) for p in rates[30.0]} == {
        (1, getattr(pipeline, name).config.hidden_size) for name in ENCODERS
    }
    table = pipeline.text_encoder.get_input_embeddings().weight
    tokens = pipeline.tokenizer("dog", add_special_tokens=False).input_ids
    assert torch.equal(adapter.layers["text_encoder"].vectors[0], table[tokens].mean(0))


@pytest.fixture(scope="module")
def trained(tiny_sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    run(tiny_sdxl, folder, **WORD)
    return folder / "run/adapter.safetensors"


def picture(pipeline: StableDiffusionXLPipeline) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        "a photo of the dog",
        height=64,
        width=64,
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    )
    return made.images


def test_a_pipeline_draws_with_the_words_vectors_and_the_masked_update(
    trained: Path, tiny_sdxl: Path, tmp_path: Path
) -> None:
    """The same as a pipeline with the vectors written into its tables and the update alone."""
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    load_adapter(pipeline, trained)
    drawn = picture(pipeline)

    written = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    load_adapter(written.unet, without_word(trained, tmp_path / "update.safetensors"))
    update_alone = picture(written)
    for name, vectors in words_of(trained).items():
        table = getattr(written, name).get_input_embeddings().weight
        tokenizer = getattr(written, name.replace("text_encoder", "tokenizer"))
        [token] = tokenizer("the", add_special_tokens=False).input_ids
        with torch.no_grad():
            table[token] = vectors[0]
    assert torch.equal(picture(written), drawn)
    assert not torch.equal(update_alone, drawn)


def without_word(file: Path, output: Path) -> Path:
    """Write the file's update alone, by hand."""
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        header = opened.metadata()
    tensors = {key: tensor for key, tensor in load_file(file).items() if "lora_" in key}
    save_file(tensors, output, metadata=header)
    return output


def test_stock_diffusers_loads_the_update_of_the_same_file(
    trained: Path, tiny_sdxl: Path, tmp_path: Path
) -> None:
    ours = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    adapter = load_adapter(ours.unet, without_word(trained, tmp_path / "update.safetensors"))
    stock = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    stock.load_lora_weights(trained)
    with adapter.unmasked():
        expected = picture(ours)
    assert torch.allclose(picture(stock), expected, atol=1e-4)


def test_the_denoiser_alone_has_no_place_for_it(trained: Path, tiny_sdxl: Path) -> None:
    unet = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl).unet
    with pytest.raises(UserError, match="has learned a word") as told:
        load_adapter(unet, trained)
    assert told.value.do == "load it on the whole pipeline"


def test_other_programs_get_it_as_a_file_of_its_own(
    trained: Path, tiny_sdxl: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    def convert(source: Path, to: str, output: Path) -> tuple[int, str]:
        given = ("--to", to, "--output", output, "--base", tiny_sdxl)
        status, *said = cli("convert", source, *given)
        return status, " ".join("".join(said).split())

    lora, word = tmp_path / "kohya.safetensors", tmp_path / "mydog.safetensors"
    status, said = convert(trained, "kohya", lora)
    assert status == 0
    assert "the learned word the is not in it" in said and "--to embedding" in said
    assert not any("vectors" in key for key in load_file(lora))
    status, said = convert(trained, "embedding", word)
    assert status == 0 and "a photo of embedding:mydog dog" in said
    vectors, held = words_of(trained), load_file(word)
    assert torch.equal(held["clip_l"], vectors["text_encoder"].float())
    assert torch.equal(held["clip_g"], vectors["text_encoder_2"].float())
    status, said = convert(lora, "embedding", tmp_path / "none.safetensors")
    assert status == 2 and "has learned no word" in said


def test_a_file_name_that_prompts_would_cut_is_told_under_another(
    trained: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    output = tmp_path / "my dog (new).safetensors"
    status, said, _ = cli("convert", trained, "--to", "embedding", "--output", output)
    assert status == 0 and output.exists()
    assert "models/embeddings as my-dog-new.safetensors" in " ".join(said.split())
    assert "a photo of embedding:my-dog-new dog" in " ".join(said.split())


def test_our_node_reads_the_update_and_says_that_there_is_a_word(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    update = adapter_file.read(without_word(trained, tmp_path / "update.safetensors"))
    assert not caplog.records
    found = adapter_file.read(trained)
    assert "has also learned a word" in caplog.text
    assert found.layers.keys() == update.layers.keys() != set()


def test_it_is_drawn_with_alone(trained: Path) -> None:
    opened = open_adapter(trained)
    with pytest.raises(UserError, match="has learned a word of its own beside the update"):
        check_joinable([opened, opened])


def test_a_merged_folder_has_word_and_update(
    trained: Path, tiny_sdxl: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    status, said, _ = cli("merge", trained, "--output", tmp_path / "merged")
    assert status == 0 and "the word the is in the text encoders' embeddings" in said
    pipeline = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    adapter = load_adapter(pipeline, trained)
    with adapter.unmasked():
        expected = picture(pipeline)
    merged = StableDiffusionXLPipeline.from_pretrained(tmp_path / "merged")
    assert torch.allclose(picture(merged), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__execution": "compile"}, "compile and a learned word don't go together"),
        ({"family": "z_image"}, "it learns a word"),
        ({"train__word_share": 1.0}, "word_share"),
        ({"train__word_share": 0.5, "train__word_lr": None}, "no word is learned"),
        (
            {"train__word_share": 0.5, "train__optimizer": {"name": "prodigy"}},
            "prodigy finds one step size",
        ),
        (
            {"train__word_share": 0.5, "adapter": {"method": "textual_inversion"}},
            "learns nothing but the word",
        ),
    ],
)
def test_recipes_that_can_not_have_it_are_refused(
    changes: dict[str, object], message: str, tiny_sdxl: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        Recipe.model_validate(recipe_values(tiny_sdxl, tmp_path, **{**WORD, **changes}))


def test_stock_diffusers_reads_the_words_file(
    trained: Path, tiny_sdxl: Path, tmp_path: Path, cli: Callable[..., tuple[int, str, str]]
) -> None:
    word = tmp_path / "word.safetensors"
    assert (
        cli("convert", trained, "--to", "embedding", "--output", word, "--base", tiny_sdxl)[0] == 0
    )
    ours = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    load_adapter(ours, trained)
    stock = StableDiffusionXLPipeline.from_pretrained(tiny_sdxl)
    held = load_file(word)
    for key, encoder, tokenizer in (
        ("clip_l", stock.text_encoder, stock.tokenizer),
        ("clip_g", stock.text_encoder_2, stock.tokenizer_2),
    ):
        stock.load_textual_inversion(
            held[key], token="<it>", text_encoder=encoder, tokenizer=tokenizer
        )
    expected, found = (
        pipeline.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False)[0]
        for pipeline, prompt in ((ours, "a photo of the dog"), (stock, "a photo of <it> dog"))
    )
    plain = stock.encode_prompt("a photo of the dog", device="cpu")[0]
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(plain, expected, atol=1e-3)
