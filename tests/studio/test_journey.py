"""The whole way in a browser: an uploaded photo, a brush, a stop, a resume, pictures and files."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_pages import browser
from studio_page import drawing
from training_runs import ROOT, same_tensors, tlora

from tlora_cli.recipe.reading import load_recipe
from tlora_cli.studio.processes import process_of

pytestmark = pytest.mark.full
LONG = 600_000
"""Milliseconds that a training may take on a busy machine."""


class Studio:
    """A studio in a process of its own, as a user starts it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tlora_cli", "studio", "--port", "0"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout
        self.address = self.process.stdout.readline().removeprefix("studio: ").strip()
        assert self.address.startswith("http://127.0.0.1:")

    def close(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Callable[[], Studio]]:
    made: list[Studio] = []

    def start() -> Studio:
        made.append(Studio())
        return made[-1]

    yield start
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait()
    run = process_of("luna")  # of a test that failed: it would go on
    if run is not None and run.alive:
        os.kill(run.pid, signal.SIGKILL)


def stroke(page: Any) -> None:
    """Take away a corner of the mask."""
    page.check("input[name=brush][value=remove]")
    page.locator("#mask").scroll_into_view_if_needed()
    box = page.locator("#mask").bounding_box()
    x, y = box["x"], box["y"]
    page.mouse.move(x + 0.4 * box["width"], y + 0.5 * box["height"])
    page.mouse.down()
    page.mouse.move(x + 0.5 * box["width"], y + 0.55 * box["height"], steps=4)
    page.mouse.up()


def test_from_a_photo_to_files(studio: Callable[[], Studio], tmp_path: Path) -> None:
    expect = pytest.importorskip("playwright.sync_api").expect
    (tmp_path / "Luna.png").write_bytes(drawing())
    said: list[str] = []

    def opened(started: Any, address: str) -> Any:
        page = started.new_context(viewport={"width": 1280, "height": 900}).new_page()
        page.set_default_timeout(120_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        own = (address.partition("?")[0], "blob:", "data:")
        page.on("request", lambda one: one.url.startswith(own) or said.append(one.url))
        page.goto(address)
        return page

    first = studio()
    with browser() as started:
        page = opened(started, first.address)
        page.set_input_files("#file", tmp_path / "Luna.png")
        page.fill("#class", "cat")
        page.select_option("#base", "toy-sdxl")
        page.get_by_text("More").click()
        page.fill("#steps", "12")
        page.press("#steps", "Tab")
        expect(page.locator("#mask-said")).to_contain_text("toy-sdxl", timeout=LONG)
        page.wait_for_timeout(1500)  # the steps are known to the studio
        stroke(page)
        expect(page.locator("#mask-said")).to_contain_text("your brush", timeout=LONG)
        page.click("#plan")
        expect(page.locator("#plan-words")).to_contain_text("12 steps", timeout=LONG)

        other = opened(started, first.address)  # a second tab of the same photo
        other.get_by_role("button", name=re.compile("^luna")).click()
        expect(other.locator("#start")).to_be_enabled(timeout=LONG)
        page.click("#start")
        other.click("#start")
        refused = re.compile("a run goes on|learned already", re.IGNORECASE)
        expect(other.locator("#message")).to_contain_text(refused, timeout=LONG)
        said[:] = [line for line in said if "400 (Bad Request)" not in line]
        other.close()
        expect(page.locator("#run-step")).to_contain_text(re.compile("step [1-9]"), timeout=LONG)
        page.reload()
        page.click("#stop")
        expect(page.locator("#run-state")).to_have_text("stopped", timeout=LONG)
        done = int(re.search(r"step (\d+)", page.inner_text("#run-step"))[1])  # type: ignore[index]
        assert 1 <= done < 12

        page.click("#resume")
        expect(page.locator("#run-state")).to_have_text("training", timeout=LONG)
        page.close()  # neither the tab nor the studio ends it
        assert first.close() == 130
        again = studio()
        page = opened(started, again.address)
        page.get_by_role("button", name=re.compile("^luna")).click()
        expect(page.locator("#run-state")).to_have_text("finished", timeout=LONG)
        assert page.locator("#preview-pictures img").count() == 2
        assert page.inner_text("#verdict-text").startswith(("Learned", "Not learned"))

        page.fill("#prompts", "a photo of a V* in a meadow")
        page.fill("#scale", "0.8")
        page.click("#draw-now")
        expect(page.locator(".drawn img")).to_have_count(2, timeout=LONG)
        expect(page.locator("#draw-now")).to_be_enabled(timeout=LONG)
        for target in ("comfyui", "diffusers", "hub"):
            page.click(f"button[data-target={target}]")
            expect(page.locator(f"button[data-target={target}]")).to_have_count(0, timeout=LONG)
        with page.expect_download() as download:
            page.get_by_text("exports/luna-diffusers.safetensors", exact=True).click()
        assert Path(download.value.path()).stat().st_size > 100_000
        page.close()
        again.close()

    assert said == []
    recipe = load_recipe(Path("luna.yaml"))
    assert (recipe.concept.masks, recipe.train.steps) == ("studio/luna/mask.png", 12)
    for file in ("luna-comfyui/workflow.json", "luna-hub/README.md"):
        assert Path("exports", file).is_file()
    assert len(list(Path("samples/luna").glob("*.png"))) == 2
    began = time.monotonic()
    done = tlora("train", "--config", "luna.yaml", "--output", "runs/again", cwd=tmp_path,
                 timeout=900)  # fmt: skip
    assert done.returncode == 0, (done.stderr, time.monotonic() - began)
    own, same = (Path("runs", name, "adapter.safetensors") for name in ("luna", "again"))
    assert same_tensors(own, same), "the recipe of the page trains the same weights to the bit"
