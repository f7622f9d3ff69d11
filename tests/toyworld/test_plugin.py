"""The built-in world is a plug-in: the program does not know its names, and can have another."""

from __future__ import annotations

import ast
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tlora_cli.comparison.grid import ConceptEntry
from tlora_cli.evaluation.image_requests import Counts
from tlora_cli.evaluation.judging import judged_evaluation
from tlora_cli.families.loading import Base
from tlora_cli.foundation import bundled
from tlora_cli.foundation.errors import UserError
from tlora_cli.photos.finding import find_images
from tlora_cli.recipe.models import Recipe
from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.training.scoring_prompts import trial_for

PACKAGE = Path(bundled.__file__).parents[1]
CORE = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in ("toyworld", "cli")
]
REGISTERED = {"toyworld", "tlora_cli.toyworld.bundle:BUNDLE"}
"""The line that registers it, in `foundation/bundled.py`."""


def code_strings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Yield the string constants of a module, but for those that only document it."""
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in documents:
            yield node


def test_the_core_was_found() -> None:
    assert len(CORE) > 100


@pytest.mark.parametrize("path", CORE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_core_does_not_know_the_built_in_world(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = REGISTERED if path == Path(bundled.__file__) else set()
    names = [
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    ]
    names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    told = [node.value for node in code_strings(tree) if isinstance(node.value, str)]
    assert not [text for text in (*names, *told) if "toy" in text and text not in allowed]
    assert not BUNDLE.scores.keys() & set(told)


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bundled.Bundle:
    """Return another bundle, which is installed beside the built-in world."""
    shutil.copytree(BUNDLE.pictures / "pip", tmp_path / "pictures" / "rosa")
    (tmp_path / "models" / "zoo-base").mkdir(parents=True)
    (tmp_path / "models" / "zoo-base" / "model_index.json").write_text("{}")
    bundled.write_checksums(tmp_path / "models" / "zoo-base")
    made = dataclasses.replace(
        BUNDLE,
        title="the zoo",
        models=tmp_path / "models",
        pictures=tmp_path / "pictures",
        prefix="zoo:",
        bases={"zoo-base": "flux"},
        encoders={},
        concepts={"rosa": "flamingo"},
        settings=lambda base, method: {"train": {"steps": 7}},
        scoring_prompts=("a V* in the rain",),
        evaluation=None,
    )
    monkeypatch.setitem(bundled.BUNDLES._own, "zoo", "zoo:BUNDLE")
    monkeypatch.setitem(bundled.BUNDLES._loaded, "zoo", made)
    bundled.model_folder.cache_clear()
    return made


def test_another_bundle_is_found_by_its_names(other: bundled.Bundle) -> None:
    assert bundled.bases() == {**BUNDLE.bases, "zoo-base": "flux"}
    assert Base("zoo-base").path == other.models / "zoo-base"
    assert find_images("zoo:rosa/2", "concept.images") == [other.pictures / "rosa" / "2.png"]
    with pytest.raises(UserError, match="the zoo has no concept 'pip'"):
        find_images("zoo:pip/1", "concept.images")
    assert ConceptEntry(name="rosa").images is None
    assert bundled.shipped() is BUNDLE


def test_another_bundle_sets_recipes_and_prompts(other: bundled.Bundle) -> None:
    concept = {"images": "zoo:rosa/1", "class": "flamingo"}
    values = {"family": "flux", "base": "zoo-base", "concept": concept, "output": {"dir": "runs"}}
    recipe = Recipe.model_validate(values)
    assert recipe.train.steps == 7
    assert recipe.train.resolution == 1024
    assert trial_for(recipe.concept.class_name, other).prompts == ("a V* in the rain",)
    assert judged_evaluation(other, recipe.model_dump(), Counts(1, 1, 1, 0)) is None
    built_in = {"concept": {"images": "toy:pip/1"}}
    assert judged_evaluation(BUNDLE, built_in, Counts(1, 1, 1, 0)) is not None
    assert judged_evaluation(BUNDLE, {"concept": concept}, Counts(1, 1, 1, 0)) is None
