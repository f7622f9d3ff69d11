"""The page in a real browser, in each of its states, on every screen, and a stranger beside it."""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from browser_pages import BROWSER, browser, run_page
from PIL import Image
from run_reports import draw_preview
from studio_page import TOKEN, drawing
from training_runs import draw_picture

from tlora_cli.sampling.draw import Job, SamplingSettings, write_picture
from tlora_cli.studio.app import make_app
from tlora_cli.studio.drafts import Draft, changing, new_draft
from tlora_cli.studio.security import Gate
from tlora_cli.studio.server import listen
from tlora_cli.studio.works import Works
from tlora_cli.training.run_folder import RunFolder

pytestmark = pytest.mark.slow
SCREENS = [
    (390, "dark"),
    *(pytest.param(*one, marks=pytest.mark.full) for one in ((1280, "light"), (1280, "dark"))),
    pytest.param(390, "light", marks=pytest.mark.full),
]
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
MACHINE = {
    "room": "a card of the tests, 24 GB", "has_card": True, "cards": ["12gb", "24gb"],
    "bases": [{"name": "toy-sdxl", "about": "built in", "classes": ["cat", "fish"]},
              {"name": "some/base", "about": "about 7 GB to download", "classes": []}],
}  # fmt: skip
FINDINGS = [
    {"level": "ok", "about": "recipe", "text": "is right", "do": ""},
    {
        "level": "warning",
        "about": "pictures",
        "text": "the photo is very dark",
        "do": "brighten it",
    },
    {"level": "problem", "about": "disk", "text": "full " + "x" * 90, "do": "free disk space"},
]


def give(name: str) -> Draft:
    Path("given.png").write_bytes(drawing())
    return new_draft(Path("given.png"), name)


def planned(works: Works) -> str:
    """Make a photo with its mask and a plan; return its name."""
    name = give("Luna <b>.png").name
    with changing(name) as draft:
        draft.class_name, draft.base = "cat", "toy-sdxl"
        draft.found_mask.mask.parent.mkdir()
        mask = Image.new("L", (64, 64))
        mask.paste(255, (16, 16, 48, 48))
        mask.save(draft.found_mask.mask)
        draft.mask = {"by": "GrabCut", "coverage": 0.25, "doubt": None}
        draft.plan = {
            "text": "recipe: photo\n" * 9, "run": f"runs/{name}", "ready": True, "elsewhere": False,
            "keeps_mask": False, "words": [["Learns", "the cat"], ["Time", "at least 3 min"]],
            "findings": FINDINGS, "wishes": draft.wishes,
        }  # fmt: skip
    return name


def trained(works: Works) -> str:
    """Make a run that was stopped, with previews, scores, drawings and an export."""
    folder = Path("runs/dog")
    folder.parent.mkdir(exist_ok=True)
    made = run_page(Path("made").absolute()).parent
    shutil.move(made, folder)
    draw_preview(folder, 60, "a <i>V*</i> at sea", draw_picture(Path("sea.png"), 4))
    checkpoint = RunFolder(folder).checkpoints / "checkpoint-000060"
    checkpoint.mkdir(parents=True)
    (checkpoint / "adapter.safetensors").write_bytes(b"no adapter")
    settings = SamplingSettings(4, 3.5, "default", "", 64, 64)
    Path("samples/dog").mkdir(parents=True)
    for number, masked in enumerate((True, False)):
        about = {"scale": 0.8, "train_steps": 60, "rank_mask": masked}
        file = Path(f"samples/dog/{number:04d}_seed3.png")
        picture = Image.open(draw_picture(Path("drawn.png"), number))
        write_picture(file, Job("a dog at sea", 3), picture, settings, about)
    for file in ("exports/dog-comfyui/workflow.json", "exports/dog-comfyui/a.safetensors"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_bytes(b"{}" * 2000)
    return "dog"


@pytest.fixture
def studio(works: Works) -> Iterator[Gate]:
    """Serve a studio; nothing computes in it."""
    works.machine.update(json.loads(json.dumps(MACHINE)))
    listening = listen("127.0.0.1", 0)
    gate = Gate("127.0.0.1", listening.getsockname()[1], TOKEN)
    server = uvicorn.Server(uvicorn.Config(make_app(works, gate), log_level="error", ws="none"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield gate
    server.should_exit = True
    thread.join(10)


class Tab:
    """A tab of the browser, what it said, and what it asked of others than the studio."""

    def __init__(self, started: Any, gate: Gate, width: int, theme: str, name: str = "") -> None:
        self.context = started.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.said: list[str] = []
        self.strange: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        own = (gate.address.partition("?")[0], "blob:", "data:")
        self.page.on("request", lambda one: one.url.startswith(own) or self.strange.append(one.url))
        self.page.goto(gate.address)
        if name:
            self.page.get_by_role("button", name=re.compile(f"^{name}")).first.click()

    def look(self, width: int) -> None:
        """Check what holds in every state."""
        page = self.page
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        for _ in range(100):
            if page.evaluate("[...document.images].every(one => one.complete)"):
                break
            time.sleep(0.05)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls"
        pictures = page.evaluate(
            "[...document.images].filter(one => one.checkVisibility())"
            ".map(one => [one.alt, one.naturalWidth])"
        )
        assert all(alt.strip() and wide for alt, wide in pictures), pictures
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        only = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
        found = axe.Axe().run(page, options=only).response["violations"]
        assert [(rule["id"], [one["html"] for one in rule["nodes"]]) for rule in found] == []
        assert (self.said, self.strange) == ([], [])


@pytest.mark.parametrize(("width", "theme"), SCREENS)
def test_every_state_is_good_on_every_screen(
    width: int, theme: str, studio: Gate, works: Works
) -> None:
    with browser() as started:
        tab = Tab(started, studio, width, theme)
        tab.page.get_by_text("Drop a photo here").wait_for()
        tab.look(width)
        name = planned(works)
        tab.page.get_by_role("button", name=re.compile(f"^{name}")).click()
        tab.page.locator("#plan-findings li").first.wait_for()
        assert tab.page.locator("#start").is_enabled()
        assert "25% of the square" in tab.page.locator("#mask-said").inner_text()
        tab.look(width)
        trained(works)
        tab.page.get_by_role("button", name=re.compile("^dog")).click()
        tab.page.locator(".drawn img").first.wait_for()
        assert tab.page.locator("#run-verdict").inner_text().startswith("Learned")
        assert tab.page.locator("#loss-plot polyline").count() >= 3
        tab.page.locator("#preview-at").focus()
        last = tab.page.locator("#preview-step").inner_text()
        tab.page.keyboard.press("ArrowLeft")
        assert tab.page.locator("#preview-step").inner_text() != last, "keys move the slider"
        tab.look(width)
        tab.page.reload()
        tab.page.locator(".drawn img").first.wait_for()
        tab.look(width)
        tab.page.goto(f"{studio.address.partition('?')[0]}report/dog")
        tab.page.get_by_role("heading", level=1).wait_for()
        assert (tab.said, tab.strange) == ([], []), "the report opens under its policy"


def test_bad_files_get_a_message_on_the_page(studio: Gate, tmp_path: Path) -> None:
    (tmp_path / "page.jpg").write_bytes(b"<!doctype html><script>alert(1)</script>")
    with (tmp_path / "large.png").open("wb") as large:
        large.truncate(200_000_000)
    with browser() as started:
        tab = Tab(started, studio, 1280, "light")
        message = tab.page.locator("#message")
        for file, said in (("page.jpg", "not a JPEG"), ("large.png", "200 MB, which is too large")):
            tab.page.set_input_files("#file", tmp_path / file)
            message.get_by_text(said).wait_for()
            tab.page.locator("#message-close").click()
        assert not [one for one in tab.said if "400" not in one], tab.said


def test_a_page_of_a_stranger_reaches_nothing(studio: Gate, tmp_path: Path) -> None:
    """With the studio open in another tab of the same browser."""
    address = studio.address.partition("?")[0]
    with browser() as started:
        tab = Tab(started, studio, 1280, "light")
        tab.page.get_by_text("Drop a photo here").wait_for()
        strange = tab.context.new_page()
        (tmp_path / "evil.html").write_text("<h1>free pictures</h1>")
        strange.goto((tmp_path / "evil.html").as_uri())
        told = strange.evaluate(
            """async (address) => {
              const tried = [];
              const post = {method: "POST", body: "x", mode: "no-cors"};
              for (const [path, how] of [["api/state", {}], ["api/photo?name=a.png", post],
                                         ["api/stop-job", {method: "POST"}]]) {
                try { const answer = await fetch(address + path, {credentials: "include", ...how});
                      tried.push(answer.type === "opaque" ? "opaque" : await answer.text()); }
                catch (error) { tried.push("refused"); } }
              const image = new Image(); image.src = address + "photo/luna";
              await image.decode().catch(() => tried.push("no picture"));
              return tried; }""",
            address,
        )
        assert told == ["refused", "refused", "refused", "no picture"]
        assert not Path("studio").exists() or not list(Path("studio").iterdir())


def test_the_browser_is_found() -> None:
    if not BROWSER:
        pytest.skip("no Chromium is installed")
    assert Path(BROWSER).is_file()
