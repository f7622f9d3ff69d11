"""Each shipped recipe passes `tlora validate`, with a plan, but for what isn't on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tlora_cli.recipe.reading import load_recipe
from tlora_cli.tools.preflight.validate import validate_recipe

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(
    path for path in (ROOT / "configs").glob("*.yaml") if "\ngrid:" not in path.read_text("utf-8")
)
LARGE = 200 * 2**30


def quick(path: Path) -> bool:
    return path.stem.startswith(("tiny_sdxl", "tiny_qwen_image_21", "toy_flux"))


@pytest.mark.parametrize(
    "path",
    [pytest.param(one, marks=() if quick(one) else pytest.mark.full) for one in RECIPES],
    ids=lambda path: path.stem,
)
def test_it_is_right_and_has_a_plan(
    path: Path, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    made = load_recipe(path)
    overrides = []
    tiny = made.base.model.startswith("tiny-models/")
    if tiny:
        overrides.append(f"base.model={request.getfixturevalue(f'tiny_{made.family}')}")
    if not str(made.concept.images).startswith("toy:"):
        overrides.append(f"concept.images={ROOT / 'assets' / 'photo.jpg'}")
    recipe, findings = validate_recipe(path, overrides, None if tiny else LARGE)
    assert recipe is not None
    problems = [one for one in findings if one.level == "problem"]
    if tiny or made.base.model.startswith("toy-"):
        assert not problems
    else:  # the base comes from the Hub
        assert [one.about for one in problems] == ["base"]
        assert "is not on this machine" in problems[0].text
    plan = [one.text for one in findings if one.about == "memory" and one.level == "ok"]
    assert {"training", "encoding"} <= {text.partition(":")[0] for text in plan}, plan
