"""What will happen: the command line's own recipe and findings, and the mask that is shown."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient
from studio_page import png

from tlora_cli.foundation.errors import UserError
from tlora_cli.recipe.reading import parse_recipe
from tlora_cli.studio.drafts import Draft, changing, find_draft
from tlora_cli.studio.masks import find_mask
from tlora_cli.studio.planning import describe_machine, mask_of, plan, start_of
from tlora_cli.studio.works import _hand_over_mask, _wishes

pytestmark = pytest.mark.slow


def quiet(line: str) -> None:
    assert line


def found(draft: str) -> Draft:
    made = find_draft(draft)
    assert made is not None
    return made


def change(draft: str, **values: Any) -> None:
    with changing(draft) as now:
        for key, value in values.items():
            setattr(now, key, value)


def test_a_mask_is_learned_as_it_is_shown(client: TestClient, draft: str) -> None:
    told = find_mask(_wishes(found(draft)), quiet)
    assert told["by"] == "GrabCut and toy-sdxl" and 0.2 < told["coverage"] < 0.35
    change(draft, mask=told)

    recipe = start_of({**_wishes(found(draft)), "masks": "auto"}).recipe
    assert mask_of(_wishes(found(draft)), recipe) == ("auto", True)
    other = recipe.model_copy(update={"train": recipe.train.model_copy(update={"guidance": 9.0})})
    file = str(found(draft).found_mask.mask)
    assert mask_of(_wishes(found(draft)), other) == (file, False), "another run would find another"
    change(draft, plan={"run": "runs/luna"})
    _hand_over_mask(found(draft))
    kept = Path("runs/luna/masks/photo.png").read_bytes()
    assert kept == found(draft).found_mask.mask.read_bytes(), "the run takes it from there"

    mask = Image.new("L", (64, 64))
    mask.paste(255, (20, 20, 50, 50))
    client.post(f"/api/{draft}/paint", content=png(mask))
    wishes = _wishes(found(draft))
    assert mask_of(wishes, recipe) == ("studio/luna/mask.png", False)
    text = start_of({**wishes, "masks": "studio/luna/mask.png"}).text
    assert parse_recipe(text, "plan").concept.masks == "studio/luna/mask.png"
    assert mask_of({**wishes, "recipe": "paper"}, recipe) == (None, False)


def test_words_and_recipe_say_the_same(draft: str) -> None:
    change(draft, recipe="paper", steps=7)
    told = plan(_wishes(found(draft)), quiet)
    words = dict(told["words"])
    assert set(words) == {
        "Learns", "How", "With", "Judges", "Memory", "Time", "Base model", "Disk", "Writes",
    }  # fmt: skip
    assert words["With"] == "tlora, rank 16, 7 steps" and words["Time"].startswith("at least ")
    recipe = parse_recipe(told["text"], "plan")
    assert told["ready"] and told["run"] == "runs/luna" and not told["keeps_mask"]
    assert (recipe.concept.masks, recipe.concept.scenes) == (None, None)
    assert recipe.train.select == "auto"
    assert recipe.train.steps == 7 and recipe.concept.images == "studio/luna/photo.png"
    assert all(asdict(found(draft))[key] for key in ("class_name", "base"))


@pytest.mark.parametrize(
    ("values", "what"),
    [({"class_name": ""}, "nothing says what"), ({"base": ""}, "no base model"),
     ({"class_name": "dog"}, "doesn't know the word 'dog'"),
     ({"base": "no/such/folder"}, "no/such/folder")],
)  # fmt: skip
def test_what_stands_against_it_is_one_message(
    draft: str, values: dict[str, Any], what: str
) -> None:
    change(draft, **values)
    with pytest.raises(UserError) as caught:
        plan(_wishes(found(draft)), quiet)
    assert what in caught.value.what and caught.value.do


def test_the_machine_and_the_bases_are_described() -> None:
    told = describe_machine({}, quiet)
    assert told["room"] and told["bases"][0]["name"] == "toy-sdxl"
    assert "cat" in told["bases"][0]["classes"]
    assert any("GB to download" in base["about"] for base in told["bases"])
