"""What was said of a photo is kept, and what belongs to another square or word is dropped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from starlette.testclient import TestClient
from studio_page import png

from tlora_cli.studio.drafts import changing, find_draft
from tlora_cli.studio.works import Works


def state(client: TestClient, name: str) -> dict[str, object]:
    return dict(client.get("/api/state", params={"name": name}).json()["shown"]["draft"])


def paint(client: TestClient, name: str, size: int = 64) -> None:
    mask = Image.new("L", (size, size))
    mask.paste(255, (size // 4, size // 4, size // 2, size // 2))
    assert client.post(f"/api/{name}/paint", content=png(mask)).status_code == 200


def test_what_is_said_is_there_after_a_reload(client: TestClient, draft: str) -> None:
    values = {"steps": 12, "recipe": "paper", "card": "24gb"}
    assert client.post(f"/api/{draft}/change", json=values).status_code == 200
    told = state(client, draft)
    assert {key: told[key] for key in values} == values
    assert (told["class_name"], told["base"]) == ("cat", "toy-sdxl")


def test_a_painted_mask_is_as_large_as_its_photo(client: TestClient, draft: str) -> None:
    paint(client, draft, size=640)  # as a screen shows it
    found = find_draft(draft)
    assert found is not None and found.painted and found.shown_mask == found.own_mask
    with Image.open(found.own_mask) as mask:
        assert mask.size == (64, 64) and mask.getpixel((20, 20)) == 255
    assert found.mask["by"] == "your brush" and found.mask["coverage"] == pytest.approx(1 / 16, 0.1)
    shown = client.get(f"/mask/{draft}")
    assert shown.headers["content-type"] == "image/png"


def test_another_square_drops_the_mask(client: TestClient, draft: str) -> None:
    paint(client, draft)
    assert client.post(f"/api/{draft}/change", json={"crop": [4, 0, 40]}).status_code == 200
    found = find_draft(draft)
    assert found is not None and not found.painted and found.shown_mask is None
    with Image.open(found.photo) as square:
        assert square.size == (40, 40)


def test_another_word_keeps_what_was_painted(client: TestClient, draft: str) -> None:
    paint(client, draft)
    client.post(f"/api/{draft}/change", json={"class_name": "ghost"})
    found = find_draft(draft)
    assert found is not None and found.painted


def test_a_photo_is_taken_again_with_all_that_was_said(client: TestClient, draft: str) -> None:
    paint(client, draft)
    client.post(f"/api/{draft}/change", json={"steps": 9})
    assert client.post(f"/api/{draft}/again", json={}).json() == {"name": "luna-2"}
    first, again = find_draft(draft), find_draft("luna-2")
    assert first is not None and again is not None
    assert (again.steps, again.painted, again.run, again.plan) == (9, True, "", {})
    for one in ("photo.png", "mask.png", first.original):
        assert (again.folder / one).read_bytes() == (first.folder / one).read_bytes()


def test_a_damaged_file_is_passed_over(client: TestClient, draft: str) -> None:
    for text in ("{", "[]", '{"name": 1}', json.dumps({"crop": [1, 2, 3], "odd": 1})):
        Path("studio", draft, "draft.json").write_text(text)
        assert find_draft(draft) is None
        assert client.get(f"/api/state?name={draft}").status_code == 200
        assert client.post(f"/api/{draft}/plan", json={}).status_code == 400


def test_nothing_begins_before_it_was_looked_at(
    works: Works, client: TestClient, draft: str
) -> None:
    for act in ("start", "recipe"):
        answer = client.post(f"/api/{draft}/{act}", json={})
        assert answer.status_code == 400 and "not yet looked at" in answer.json()["what"]
    with changing(draft) as now:
        now.plan = {
            "wishes": now.wishes,
            "ready": True,
            "text": "x",
            "keeps_mask": False,
            "run": "",
        }
    client.post(f"/api/{draft}/change", json={"steps": 5})
    assert "something changed since" in client.post(f"/api/{draft}/start", json={}).json()["what"]
    assert not Path("luna.yaml").exists()
