"""Recipe files: what can be read, what is refused, and what is said about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from recipe_texts import LEAST, mistake, mistakes

from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.models import Recipe
from tlora_cli.recipe.reading import (
    MAX_BYTES,
    dump_recipe,
    load_recipe,
    parse_recipe,
    recipe_schema,
)


def test_least_recipe() -> None:
    r = parse_recipe(LEAST)
    assert (r.base.model, r.concept.class_name, r.output.dir) == ("some/model", "dog", "runs/dog")


def test_all_mistakes_at_once_in_the_order_of_the_file() -> None:
    text = """\
family: flux
base: some/model
rank: 4
concept:
  images: dog.jpg
  prompt: a {thing}
adapter:
  rank: 4
  min_rank: 8
  methodd: tlora
train:
  stepz: 5
  steps: 0
  resolution: 1000
  timesteps: {low: 500, high: 400}
sampling:
  scheduler: ddim
"""
    assert mistakes(text) == [
        "line 3: rank: unknown key; `rank` belongs under `adapter`",
        "line 4: concept.class: missing (Class of the concept, e.g. dog.)",
        "line 6: concept.prompt: braces may only hold {placeholder} and {class}, got '{thing}'",
        "line 9: adapter.min_rank: 8 is above rank 4",
        "line 10: adapter.methodd: unknown key; did you mean `adapter.method`?",
        "line 12: train.stepz: unknown key; did you mean `train.steps`?",
        "line 13: train.steps: must be at least 1, got 0",
        "line 14: train.resolution: must be a multiple of 16 for flux, got 1000",
        "line 15: train.timesteps.low: 500 is not below high 400",
        "line 17: sampling.scheduler: ddim is not defined for flow matching; "
        "use one of default, euler, dpmpp_2m, unipc",
        "output: missing section; it needs dir",
    ]


def test_checks_across_keys_are_not_made_on_what_is_wrong_itself() -> None:
    adapter = 'adapter:\n  rank: "128"\n  min_rank: 80\n'
    assert mistake(LEAST + adapter) == (
        "line 9: adapter.rank: must be a whole number, got the text '128'"
    )
    wrong_family = LEAST.replace("sdxl", "fluxx") + "train: {objective: flow}\n"
    assert mistake(wrong_family) == (
        "line 1: family: must be one of sdxl, flux, flux2, z_image, qwen_image, sd3, krea2, "
        "qwen_image_21, got the text 'fluxx'; did you mean flux?"
    )


def test_min_rank_above_a_default_rank_points_at_min_rank() -> None:
    assert mistake(LEAST + "adapter:\n  min_rank: 80\n") == (
        "line 9: adapter.min_rank: 80 is above rank 64"
    )


def test_a_check_on_a_default_points_at_what_was_written() -> None:
    text = LEAST + "adapter:\n  schedule:\n    kind: step\n"
    assert mistake(text).startswith("line 10: adapter.schedule.points: schedule kind step needs")


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("adapter: {min_rnk: 4}", "adapter.min_rnk: unknown key; did you mean `adapter.min_rank`?"),
        ("steps: 4", "steps: unknown key; `steps` belongs under `train` or `sampling`"),
        ("train: {lr: 1.0}", "train.lr: unknown key; `lr` belongs under `train.optimizer`"),
        ("train: {family: sdxl}", "train.family: unknown key; `family` belongs at the top"),
        ("trian: {steps: 4}", "trian: unknown key; did you mean `train`?"),
        ("output.dir: x", "output.dir: unknown key; nest it: `dir` under `output`"),
        ("<<: {a: 1}", "<<: unknown key; merging (<<) is not supported; write the keys out"),
        ("sampling: {zzz: 4}", "sampling.zzz: unknown key; the keys here are steps, guidance,"),
        ("train: {precision: float16}", "one of fp32, bf16, fp16, got the text 'float16'; did you"),
        ("adapter: {method: t-lora}", "got the text 't-lora'; did you mean tlora?"),
        ("train: {quantization: int4}", "train.quantization: must be one of nf4, int8, got"),
    ],
)
def test_did_you_mean(yaml: str, message: str) -> None:
    line = mistake(LEAST + yaml)
    assert line.startswith("line 8: ")
    assert message in line


def test_class_name_is_not_a_key_of_recipes() -> None:
    assert mistakes(LEAST.replace("class:", "class_name:")) == [
        "line 3: concept.class: missing (Class of the concept, e.g. dog.)",
        "line 5: concept.class_name: unknown key; did you mean `concept.class`?",
    ]


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ('train: {steps: "64"}', "train.steps: must be a whole number, got the text '64'"),
        ("train: {steps: true}", "train.steps: must be a whole number, got true"),
        ("train: {steps: 1e3}", "train.steps: must be a whole number, got 1000.0; write 1000"),
        ("train: {steps: 1.5}", "train.steps: must be a whole number, got 1.5"),
        ("train: {steps: 1_000}", "train.steps: must be a whole number, got the text '1_000'"),
        ("train: {steps:}", "train.steps: must be a whole number, got nothing (null)"),
        ("train: {steps: [1]}", "train.steps: must be a whole number, got a list"),
        ("train: {steps: {a: 1}}", "train.steps: must be a whole number, got a section"),
        ("train: {max_grad_norm: true}", "train.max_grad_norm: must be a number, got true"),
        ("train: {max_grad_norm: 0}", "train.max_grad_norm: must be above 0, got 0"),
        ("train: {max_grad_norm: .inf}", "must be a finite number, got inf"),
        ("train: {max_grad_norm: 1e999}", "must be a finite number, got inf"),
        ("train: {seed: 9223372036854775808}", "train.seed: must be below 9223372036854775808"),
        ("train: {timesteps: {low: 1000}}", "train.timesteps.low: must be at most 999, got 1000"),
        ("train: {resolution: 1001}", "train.resolution: must be a multiple of 8, got 1001"),
        ("train: {gradient_checkpointing: yes}", "got the text 'yes'; write true"),
        ("train: {optimizer: {betas: [0.9]}}", "train.optimizer.betas[1]: too few values"),
        ("train: {optimizer: {betas: [0, 0, 0]}}", "must have at most 2 values, got 3"),
        ("train: {optimizer: {betas: 0.9}}", "train.optimizer.betas: must be a list, got 0.9"),
        ("train: {preview: {prompts: []}}", "must have at least 1 values, got 0"),
        ("train: {preview: {prompts: [a, 5]}}", "prompts[1]: must be text, got 5; put it in quot"),
        ("train:", "train: must be a section (steps, batch_size, "),
        ("sampling: {negative_prompt:}", 'got nothing (null); write "" for no text'),
    ],
)
def test_wrong_values(yaml: str, message: str) -> None:
    line = mistake(LEAST + yaml)
    assert line.startswith("line 8: ")
    assert message in line


def test_items_of_a_list_have_their_own_line() -> None:
    text = LEAST + "train:\n  preview:\n    prompts:\n      - a\n      - 5\n"
    assert mistake(text).startswith("line 12: train.preview.prompts[1]: must be text, got 5")


def test_base_in_words() -> None:
    assert "base: must be a model name or a section (model, revision, " in mistake(
        LEAST.replace("some/model", "5")
    )
    assert mistake(LEAST.replace("base: some/model\n", "")) == (
        "base: missing (a model name, or a section)"
    )
    assert mistake(LEAST.replace("some/model", '""')) == (
        "line 2: base.model: must be a text that is not empty, got an empty text"
    )


def test_odd_keys_and_texts() -> None:
    assert mistake(LEAST + "1: x") == "line 8: 1: a key must be text"
    assert mistake(LEAST + "? [a]\n: x") == "line 8: ...: a key must be text"
    assert mistake(LEAST + "train: {steps: " + "9" * 5000 + "}").endswith("number is too long")
    for escape in (r"\ud800", r"\0"):
        line = mistake(LEAST + f'sampling: {{negative_prompt: "{escape}"}}')
        assert line.endswith("the text holds a character that no text may hold")


def test_messages_are_safe_to_print() -> None:
    line = mistake(LEAST + '"\\e[31mred\\n": 1')
    assert "\x1b" not in line
    assert r"'\x1b[31mred\n'" in line


def test_many_mistakes_are_cut() -> None:
    text = LEAST + "".join(f"k{number}: 1\n" for number in range(100))
    with pytest.raises(UserError) as caught:
        parse_recipe(text)
    lines = str(caught.value).splitlines()
    assert lines[0] == "100 mistakes in recipe"
    assert lines[-2] == "  ... and 70 more"


# Files


def test_load(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + LEAST.replace("\n", "\r\n").encode())
    assert load_recipe(file, ["train.steps=2"]).train.steps == 2
    assert load_recipe(file).concept.images == "dog.jpg"


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def complaint(data: bytes | None) -> str:
        file = tmp_path / "r.yaml"
        if data is not None:
            file.write_bytes(data)
        with pytest.raises(UserError) as caught:
            load_recipe(file)
        assert str(file) in str(caught.value)
        return caught.value.what

    assert complaint(None) == "there is no such recipe"
    assert complaint(b"") == "the recipe is empty"
    assert complaint(b"# only a comment\n") == "the recipe is empty"
    assert complaint(b"a: 1\nb: \xff") == "the recipe is not UTF-8 text"
    assert complaint(b"\x89PNG\r\n\x1a\n\0\0") == "the recipe is not UTF-8 text"
    assert complaint(b"#" * (MAX_BYTES + 1)) == "the file is too large for a recipe (over 1 MB)"
    with pytest.raises(UserError, match="a folder is no recipe"):
        load_recipe(tmp_path)
    with pytest.raises(UserError, match="cannot read the recipe: File name too long"):
        load_recipe(Path("x" * 5000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(LEAST)
    file.chmod(0)
    with pytest.raises(UserError, match="cannot read the recipe: Permission denied"):
        load_recipe(file)


# Dump and schema


@pytest.mark.parametrize(
    "yaml",
    [
        "",
        "adapter: {method: lora, rank: 3}",
        "adapter: {schedule: {kind: step, points: [[0, 32], [800.5, 16]]}}",
        "train: {optimizer: {lr: 1e-7, betas: [0, 0.5]}, preview: {prompts: [a V*, 'x: y']}}",
        "train: {preview: {prompts: ['1e-4', 'no', '1:30']}}",
        "train: {preview: {prompts: [' #{class}*&!|>%@` é 犬 🐕 \\']}}",
        'train: {preview: {prompts: ["two\\nlines\\t"]}}',
        "train: {preview: {prompts: ['" + "long " * 60 + "']}}",
    ],
)
@pytest.mark.parametrize("family", ["sdxl", "flux"])
def test_dump_loads_back(yaml: str, family: str) -> None:
    recipe = parse_recipe(LEAST.replace("sdxl", family) + yaml)
    text = dump_recipe(recipe)
    again = parse_recipe(text)
    assert again == recipe
    assert dump_recipe(again) == text


def test_dump_is_in_the_order_of_the_models_and_complete() -> None:
    lines = dump_recipe(parse_recipe(LEAST)).splitlines()
    sections = [line.split(":")[0] for line in lines if not line.startswith(" ")]
    assert sections == list(Recipe.model_fields)
    assert "  class: dog" in lines
    assert "    betas: [0.9, 0.999]" in lines


def test_schema() -> None:
    schema = recipe_schema()
    json.dumps(schema)
    assert schema["required"] == ["family", "base", "concept", "output"]
    assert schema["properties"]["base"]["anyOf"][0] == {"type": "string", "minLength": 1}
    assert schema["$defs"]["ConceptConfig"]["required"] == ["images", "class"]
    assert "required" not in schema["$defs"]["AdapterConfig"]
    for name, model in schema["$defs"].items():
        assert model["additionalProperties"] is False
        for key, value in model["properties"].items():
            assert "description" in value or "$ref" in value, f"{name}.{key} is not described"
