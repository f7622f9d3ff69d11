"""The models of a recipe: defaults, and the checks across keys."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from tlora_cli.families import FAMILIES
from tlora_cli.recipe.models import Recipe

TURNS = {"offload": True, "gradient_checkpointing": True}


def recipe(family: str = "sdxl", **sections: Any) -> Recipe:
    """Return the least recipe there is, with the given sections."""
    least: dict[str, Any] = {
        "family": family,
        "base": "some/model",
        "concept": {"images": "dog.jpg", "class": "dog"},
        "output": {"dir": "runs/dog"},
    }
    return Recipe.model_validate({**least, **sections})


def complaint(family: str = "sdxl", **sections: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        recipe(family, **sections)
    return str(caught.value)


def test_sdxl_defaults_are_the_published_ones() -> None:
    r = recipe("sdxl")
    assert (r.adapter.method, r.adapter.rank, r.adapter.min_rank) == ("tlora", 64, 32)
    assert (r.adapter.init, r.adapter.init_std) == ("random_last", "1/r")
    assert (r.adapter.schedule.kind, r.adapter.schedule.alpha) == ("linear", 1.0)
    assert (r.train.steps, r.train.batch_size, r.train.resolution) == (800, 1, 1024)
    o = r.train.optimizer
    assert (o.name, o.lr, o.betas, o.weight_decay) == ("adamw", 1e-4, (0.9, 0.999), 1e-4)
    assert r.train.max_grad_norm is None
    assert (r.sampling.steps, r.sampling.guidance) == (25, 5.0)


def test_flux_defaults_are_the_published_ones() -> None:
    r = recipe("flux")
    # The paper takes the schedule alone on FLUX, whose adapters have full rank by themselves.
    assert (r.adapter.method, r.adapter.rank, r.adapter.min_rank) == ("vanilla_tlora", 32, 1)
    assert (r.train.steps, r.train.max_grad_norm, r.train.guidance) == (500, 1.0, 1.0)
    assert (r.train.optimizer.name, r.train.optimizer.lr) == ("prodigy", 1.0)
    assert (r.train.precision, r.sampling.steps, r.sampling.guidance) == ("bf16", 28, 3.5)


def test_what_is_given_wins_over_the_family_default() -> None:
    r = recipe("flux", train={"optimizer": {"name": "adamw"}, "max_grad_norm": None})
    assert (r.train.optimizer.name, r.train.optimizer.lr) == ("adamw", 1e-4)
    assert r.train.max_grad_norm is None
    assert r.train.steps == 500


@pytest.mark.parametrize("family", FAMILIES)
def test_the_method_is_a_fact_of_the_family(family: str) -> None:
    own = FAMILIES[family].default_method
    assert recipe(family).adapter.method == own
    assert recipe(family, adapter={"rank": 8}).adapter.method == own
    assert recipe(family, adapter={"method": "lora"}).adapter.method == "lora"
    assert recipe(family, recipe="photo").adapter.method == own


def test_family_defaults_are_not_changed_by_use() -> None:
    recipe("flux", train={"steps": 3, "optimizer": {"name": "adamw"}})
    assert FAMILIES["flux"].defaults["train"]["optimizer"] == {"name": "prodigy"}
    assert "steps" not in FAMILIES["flux"].defaults["train"]


@pytest.mark.parametrize(
    ("family", "method", "rank", "min_rank", "steps"),
    [
        ("sdxl", "lora", 64, 64, 500),
        ("sdxl", "vanilla_tlora", 64, 32, 500),
        ("sdxl", "ortho_lora", 64, 64, 800),
        ("sdxl", "tlora", 64, 32, 800),
        ("flux", "lora", 32, 32, 400),
        ("flux", "tlora", 32, 1, 500),
    ],
)
def test_what_is_left_out_has_the_published_settings(
    family: str, method: str, rank: int, min_rank: int, steps: int
) -> None:
    made = recipe(family, adapter={"method": method})
    assert (made.adapter.rank, made.adapter.min_rank) == (rank, min_rank)
    assert made.train.steps == steps


@pytest.mark.parametrize(
    ("family", "sections", "words"),
    [
        ("flux", {"sampling": {"negative_prompt": "blurry"}}, "takes no negative prompt"),
        (
            "sdxl",
            {"adapter": {"init": "weights_last"}, "train": {"quantization": "nf4"}},
            "decomposes the base weights",
        ),
        (
            "sdxl",
            {"base": "model.safetensors", "train": {"quantization": "int8"}},
            "a single-file base can't be quantized",
        ),
        ("sdxl", {"train": {"device": "cpu", "precision": "fp16"}}, "needs a GPU"),
        ("sdxl", {"train": {"device": "cpu", "quantization": "nf4"}}, "needs a GPU"),
        ("sdxl", {"train": {"device": "cpu", "attention": "xformers"}}, "needs a GPU"),
        (
            "sdxl",
            {"train": {"device": "cpu", "optimizer": {"name": "adamw8bit"}}},
            "needs a GPU",
        ),
    ],
)
def test_what_can_not_work_is_told_before_anything_is_loaded(
    family: str, sections: dict[str, Any], words: str
) -> None:
    assert words in complaint(family, **sections)


def test_base_may_be_a_string() -> None:
    assert recipe(base="a/b").base == recipe(base={"model": "a/b"}).base


@pytest.mark.parametrize(
    ("adapter", "expected"),
    [
        ({"rank": 16}, 8),
        ({"rank": 5}, 2),
        ({"rank": 1}, 1),
        ({"rank": 16, "method": "vanilla_tlora"}, 8),
        ({"rank": 16, "method": "lora"}, 16),
        ({"rank": 16, "method": "ortho_lora"}, 16),
        ({"rank": 16, "min_rank": 3}, 3),
    ],
)
def test_default_of_min_rank(adapter: dict[str, Any], expected: int) -> None:
    assert recipe(adapter=adapter).adapter.min_rank == expected


def test_models_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        recipe().train.steps = 3  # type: ignore[misc]


def test_class_name_is_the_name_in_python() -> None:
    assert recipe(concept={"images": "a.png", "class_name": "cat"}).concept.class_name == "cat"


@pytest.mark.parametrize(
    ("family", "sections", "message"),
    [
        ("sdxl", {"adapter": {"rank": 4, "min_rank": 8}}, "min_rank: 8 is above rank 4"),
        (
            "sdxl",
            {"adapter": {"method": "lora", "min_rank": 8}},
            "min_rank: lora always uses its full rank; drop min_rank or take vanilla_tlora",
        ),
        (
            "sdxl",
            {"adapter": {"method": "ortho_lora", "min_rank": 8}},
            "ortho_lora always uses its full rank; drop min_rank or take tlora",
        ),
        (
            "sdxl",
            {"adapter": {"method": "lora", "schedule": {"kind": "cosine"}}},
            "schedule: lora has no rank schedule; drop schedule",
        ),
        ("sdxl", {"adapter": {"schedule": {"kind": "step"}}}, "schedule kind step needs points"),
        (
            "sdxl",
            {"adapter": {"schedule": {"points": [[0, 4]]}}},
            "points belong to step and piecewise, not to linear",
        ),
        (
            "sdxl",
            {"adapter": {"schedule": {"kind": "step", "points": [[500, 4], [500, 2]]}}},
            "the timesteps of points must rise",
        ),
        (
            "sdxl",
            {"adapter": {"schedule": {"kind": "step", "points": [[0, 4], [1001, 2]]}}},
            "the timesteps of points must lie in 0..1000",
        ),
        (
            "sdxl",
            {"adapter": {"rank": 8, "schedule": {"kind": "piecewise", "points": [[0, 9]]}}},
            "a point of the schedule has rank 9, outside 0..8",
        ),
        ("sdxl", {"adapter": {"targets": "to_(q"}}, "must be a regular expression"),
        ("sdxl", {"train": {"timesteps": {"low": 9, "high": 9}}}, "low: 9 is not below high 9"),
        ("sdxl", {"train": {"optimizer": {"betas": [0.9, 1.0]}}}, r"must lie in [0, 1)"),
        ("sdxl", {"train": {"objective": "flow"}}, "flow does not fit sdxl; use one of auto, eps"),
        ("flux", {"train": {"objective": "epsilon"}}, "epsilon does not fit flux"),
        ("flux", {"sampling": {"scheduler": "ddim"}}, "ddim is not defined for flow matching"),
        ("flux", {"train": {"resolution": 1000}}, "train.resolution: must be a multiple of 16"),
        ("flux", {"sampling": {"width": 1000}}, "sampling.width: must be a multiple of 16"),
        ("flux", {"sampling": {"height": 8}}, "sampling.height: must be a multiple of 16"),
        (
            "sdxl",
            {"concept": {"images": ["a", "b"], "masks": ["c"], "class": "dog"}},
            "masks: 1 masks for 2 images",
        ),
        ("sdxl", {"train": {"offload": True}}, "needs gradient_checkpointing: true"),
        ("sdxl", {"train": {**TURNS, "quantization": "int8"}}, "use nf4, or none"),
        ("sdxl", {"train": {**TURNS, "execution": "compile"}}, "stay in their place; use eager"),
        ("sdxl", {"train": {**TURNS, "device": "cpu"}}, "needs a GPU, but train.device is cpu"),
        ("sdxl", {"train": TURNS, "adapter": {"method": "svdiff"}}, "use a low-rank method"),
        ("sdxl", {"train": TURNS, "adapter": {"method": "pissa"}}, "start is made from the base's"),
        ("sdxl", {"train": TURNS, "adapter": {"init": "weights_last"}}, "use a random one"),
        ("sdxl", {"concept": {"images": [], "class": "dog"}}, "must name at least one file"),
        ("sdxl", {"concept": {"images": [""], "class": "dog"}}, "must not be empty"),
        ("sdxl", {"concept": {"images": 5, "class": "dog"}}, "must be a path or a list of paths"),
    ],
)
def test_what_does_not_go_together(family: str, sections: dict[str, Any], message: str) -> None:
    assert message in complaint(family, **sections)


def test_one_error_names_every_problem_of_a_section() -> None:
    text = complaint("flux", train={"resolution": 1000}, sampling={"scheduler": "ddim"})
    assert "train.resolution: " in text
    assert "sampling.scheduler: " in text


def test_sdxl_needs_no_multiple_of_16() -> None:
    assert recipe("sdxl", train={"resolution": 1000}).train.resolution == 1000


@pytest.mark.parametrize("prompt", ["{placeholder} {class}", "a {class}", "no braces at all"])
def test_prompts_that_can_be_filled_in(prompt: str) -> None:
    concept = {"images": "a", "class": "dog", "prompt": prompt, "prior": {"prompt": prompt}}
    assert recipe(concept=concept).concept.prompt == prompt


@pytest.mark.parametrize(
    "prompt", ["a {name}", "{}", "a {class", "class}", "{{class}}", "{ class }"]
)
@pytest.mark.parametrize("prior", [False, True])
def test_prompts_that_cannot_be_filled_in(prompt: str, prior: bool) -> None:
    given = {"prior": {"prompt": prompt}} if prior else {"prompt": prompt}
    text = complaint(concept={"images": "a", "class": "dog", **given})
    assert "braces may only hold {placeholder} and {class}, got " in text


@pytest.mark.parametrize(
    "train",
    [
        {"steps": "64"},
        {"steps": True},
        {"steps": 64.0},
        {"optimizer": {"lr": "1e-4"}},
        {"optimizer": {"lr": True}},
        {"optimizer": {"betas": ["0.9", 0.99]}},
        {"gradient_checkpointing": 1},
        {"gradient_checkpointing": "true"},
        {"preview": {"prompts": [5]}},
    ],
)
def test_types_are_strict(train: dict[str, Any]) -> None:
    assert "Input should be a valid" in complaint(train=train)


def test_whole_numbers_are_numbers() -> None:
    assert recipe(train={"optimizer": {"lr": 1}}).train.optimizer.lr == 1.0


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_are_finite(value: float) -> None:
    assert "finite" in complaint(train={"optimizer": {"lr": value}})
