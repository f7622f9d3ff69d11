"""Every page in a real browser: wide and narrow, light and dark, without a network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser_pages import PAGES, browser

WIDTHS, THEMES = (1280, 390), ("light", "dark")
QUICK = {(1280, "light"), (390, "dark")}
"""Widths and themes in which all of axe's rules run; in the others with `--full`."""
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
LEAST_CONTRAST = 4.5

PICTURES = """[...document.images].map(one => ({
  alt: one.alt, wide: one.naturalWidth, done: one.complete}))"""
SVG_TEXTS = """() => {
  const numbers = text => text.match(/[0-9.]+/g).map(Number);
  const light = rgb => { const [r, g, b] = rgb.slice(0, 3).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const back = light(numbers(getComputedStyle(document.body).backgroundColor));
  return [...document.querySelectorAll('svg text')].map(one => {
    const own = light(numbers(getComputedStyle(one).fill));
    return [one.textContent, (Math.max(own, back) + 0.05) / (Math.min(own, back) + 0.05)]; });
}"""
SHOWN = """[...document.querySelectorAll('.frames')].map(one =>
  [...one.children].map((frame, n) => frame.checkVisibility() ? n : -1).filter(n => n >= 0))"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a page of each kind, each made when it is first asked for."""

    class Made(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = PAGES[name](tmp_path_factory.mktemp("page"))
            return self[name]

    return Made()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


class Opened:
    """A page in a browser without a network, and what it said and asked for."""

    def __init__(self, chromium: Any, file: Path, width: int, theme: str) -> None:
        self.context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, offline=True
        )
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.refused: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("requestfailed", lambda request: self.refused.append(request.failure))
        self.page.goto(file.as_uri())
        self.asked = [one for one in self.asked if one != file.as_uri()]

    def axe(self) -> list[str]:
        """Return what axe finds: rule, element, why."""
        axe = pytest.importorskip("axe_playwright_python.sync_playwright")
        only = {"runOnly": {"type": "tag", "values": RULES}, "resultTypes": ["violations"]}
        found = axe.Axe().run(self.page, options=only).response["violations"]
        return [
            f"{rule['id']}: {node['html'][:200]}: {node['failureSummary']}"
            for rule in found
            for node in rule["nodes"]
        ]


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_good_on_every_screen(name: str, pages: dict[str, Path], chromium: Any) -> None:
    for width in WIDTHS:
        for theme in THEMES:
            opened = Opened(chromium, pages[name], width, theme)
            page = opened.page
            assert page.evaluate("document.documentElement.scrollWidth") <= width, "it scrolls"
            for one in page.evaluate(PICTURES):
                assert one["done"] and one["wide"] > 0, one
                assert one["alt"].strip(), "a picture without a text"
            for text, contrast in page.evaluate(SVG_TEXTS):
                assert contrast >= LEAST_CONTRAST, (text, contrast, theme)
            if (width, theme) in QUICK:
                page.evaluate(
                    "document.querySelectorAll('details').forEach(one => one.open = true)"
                )
                assert page.evaluate("document.documentElement.scrollWidth") <= width
                assert opened.axe() == []
            assert opened.said == [] and opened.asked == []
            opened.context.close()


@pytest.mark.full
@pytest.mark.parametrize("name", PAGES)
def test_no_rule_of_axe_is_broken_in_the_other_themes(
    name: str, pages: dict[str, Path], chromium: Any
) -> None:
    for width, theme in {(w, t) for w in WIDTHS for t in THEMES} - QUICK:
        opened = Opened(chromium, pages[name], width, theme)
        assert opened.axe() == []
        opened.context.close()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chosen"), [("report", None), ("demo", 3)])
def test_the_slider_is_moved_by_keys(
    name: str, chosen: int | None, pages: dict[str, Path], chromium: Any
) -> None:
    opened = Opened(chromium, pages[name], 1280, "light")
    page = opened.page
    knobs = page.locator(".steps input")
    frames = page.locator(".frames").first.locator(".frame").count()
    begun = page.evaluate(SHOWN)
    assert len(begun) >= 2 and all(one == begun[0] for one in begun), "all show the same step"
    [first] = begun[0]
    assert chosen is None or first == chosen
    page.keyboard.press("Tab")
    while not page.evaluate("document.activeElement.matches('.steps input')"):
        page.keyboard.press("Tab")
    for number in range(first, 0, -1):
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(SHOWN) == [[number - 1]] * len(begun)
        visible = page.locator(".frame:visible img")
        assert all(visible.nth(n).bounding_box()["width"] >= 256 for n in range(2))
    page.keyboard.press("ArrowRight")
    assert page.evaluate(SHOWN) == [[1]] * len(begun)
    if knobs.count() > frames:  # the last knob shows all
        page.locator(".steps .every").click()
        assert page.evaluate(SHOWN) == [list(range(frames))] * len(begun)
    assert opened.said == []
    opened.context.close()


@pytest.mark.slow
def test_a_page_could_not_load_or_run_anything(pages: dict[str, Path], chromium: Any) -> None:
    """As if something had slipped through the escaping: the browser itself refuses it."""
    opened = Opened(chromium, pages["evaluate"], 1280, "light")
    opened.page.evaluate(
        """() => { const add = (name, values) => document.body.appendChild(
             Object.assign(document.createElement(name), values));
           add('script', {textContent: 'window.ran = true'});
           add('img', {src: 'http://localhost:9/a.png'});
           add('iframe', {src: 'http://localhost:9/'});
           add('base', {href: 'http://localhost:9/'}); }"""
    )
    opened.page.wait_for_timeout(200)
    assert opened.page.evaluate("window.ran") is None
    assert set(opened.refused) == {"csp"} and len(opened.refused) == len(opened.asked)
    assert sum("Content Security Policy" in one for one in opened.said) >= 3
    opened.context.close()
