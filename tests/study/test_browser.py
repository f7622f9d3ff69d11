"""The rater's page and the report in a real browser: keys, a server that dies, sizes."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from study_folders import answer_all, small_study
from training_runs import ROOT

from tlora_cli.study.design import Study
from tlora_cli.study.report import write_report
from tlora_cli.study.trials import EQUAL, Trial
from tlora_cli.study.votes import Votes

pytest.importorskip("playwright", reason="playwright, of the extra [dev], is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="this computer has no Chromium"),
    pytest.mark.slow,
]
SIZES = [(1280, 800), (390, 844)]

CONTRAST = (ROOT / "tests" / "contrast.js").read_text("utf-8")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as program:
        opened = program.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return small_study(tmp_path, pairs=4, concepts=2)


class Server:
    """`tlora study serve` in a process of its own, which can be killed and started again."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self.port = 0
        self.start()

    def start(self) -> None:
        words = ["study", "serve", str(self._study.folder), "--port", str(self.port)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tlora_cli", *words],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", self._process.stdout.readline())
        assert found
        self.port = int(found[1])

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture
def server(study: Study) -> Iterator[Server]:
    running = Server(study)
    yield running
    running.kill()


def opened(
    browser: Any, size: tuple[int, int] = SIZES[0], scheme: str = "light"
) -> tuple[Any, list[str]]:
    """Return a page, and the list of what it complains of or asks elsewhere."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
    said: list[str] = []
    page.on("console", lambda line: said.append(line.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on(
        "request",
        lambda asked: (
            None
            if asked.url.startswith(("http://127.0.0.1:", "file:", "data:"))
            else said.append(asked.url)
        ),
    )
    return page, said


def begin(page: Any, server: Server, name: str) -> None:
    page.goto(server.address)
    page.get_by_label("Your name").fill(name)
    page.keyboard.press("Enter")
    place(page, 1)


def place(page: Any, number: int) -> None:
    """Wait until a pair is shown, with all of its pictures."""
    page.wait_for_function(
        "n => place.textContent.startsWith(`${n} of`) && now && !busy && "
        "[...document.images].every(i => i.complete && i.naturalWidth > 0)",
        arg=number,
    )


def test_a_rater_answers_by_keys_through_a_killed_server(
    browser: Any, study: Study, server: Server
) -> None:
    page, said = opened(browser)
    begin(page, server, "Ann <b>")
    keys = ("ArrowLeft", "ArrowDown", "ArrowRight")
    total = int(page.evaluate("now.total"))
    for number in range(1, 4):
        place(page, number)
        for question, key in enumerate(keys):
            page.wait_for_function("n => current === n && !busy", arg=question)
            page.keyboard.press(key)
    place(page, 4)
    assert said == []

    # Back to the last answer of the pair before, which is given anew; then on where one was.
    page.keyboard.press("Backspace")
    place(page, 3)
    page.wait_for_function("() => current === 2")
    pressed = page.locator(".question.now button[aria-pressed=true]")
    assert "Right" in pressed.inner_text()
    page.keyboard.press("ArrowLeft")
    place(page, 4)

    # The server dies; the answer waits in the page, and no other is taken; then it is kept.
    server.kill()
    page.keyboard.press("ArrowRight")
    page.get_by_text("The server does not answer.").wait_for()
    page.keyboard.press("ArrowLeft")
    assert len(Votes(study).all()) == 9
    server.start()
    page.wait_for_function("() => current === 1 && !busy")
    assert page.locator("#status").inner_text() == ""

    # Another browser goes on under the same name.
    page.close()
    page, _ = opened(browser)
    page.goto(server.address)
    page.get_by_label("Your name").fill("ann <B>")
    page.get_by_role("button", name="Begin or go on").click()
    place(page, 4)
    page.wait_for_function("() => current === 1 && !busy")
    for number in range(4, total + 1):
        place(page, number)
        for question in range(1 if number == 4 else 0, 3):
            page.wait_for_function("n => current === n && !busy", arg=question)
            page.locator(".question.now").get_by_text("No difference").click()
    page.get_by_text("Thank you, Ann <b>. That was all.").wait_for()

    votes = Votes(study)
    assert list(votes.names().values()) == ["Ann <b>"]
    given = votes.answered(0)
    assert len(given) == total and all(len(one) == 3 for one in given.values())
    assert given[0] == given[1] == {"concept": "left", "text": "same", "overall": "right"}
    assert given[2]["overall"] == "left" and given[3]["concept"] == "right"
    assert all(0 < one.seconds < 60 for one in votes.all())
    page.close()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        (SIZES[0], "light"),
        (SIZES[1], "dark"),
        pytest.param(SIZES[0], "dark", marks=pytest.mark.full),
        pytest.param(SIZES[1], "light", marks=pytest.mark.full),
    ],
)
def test_pages_fit_and_can_be_read(
    browser: Any, study: Study, server: Server, size: tuple[int, int], scheme: str
) -> None:
    def answer(trial: Trial, question: str, draw: random.Random) -> str:
        return "same" if trial.kind == EQUAL else draw.choice(("left", "right"))

    answer_all(study, "Ann", answer)
    answer_all(study, "Bob", answer)
    answer_all(study, "Always <left>", lambda trial, question, draw: "left")
    report = write_report(study).files[0]
    addresses = [server.address, f"{server.address}rate?rater=Eve", report.as_uri()]
    for address in addresses:
        page, said = opened(browser, size, scheme)
        page.goto(address)
        if "rate" in address:
            place(page, 1)
        assert not page.evaluate("document.documentElement.scrollWidth > innerWidth"), address
        assert page.evaluate(CONTRAST) == [], address
        assert page.evaluate("[...document.images].every(i => i.alt && i.naturalWidth)"), address
        assert said == [], address
        page.close()


def test_a_page_of_another_site_changes_nothing(
    browser: Any, study: Study, server: Server, tmp_path: Path
) -> None:
    """A file is another origin than the server's: it can neither vote, nor read, nor frame it."""
    evil = tmp_path / "evil.html"
    evil.write_text(
        f"""<iframe src="{server.address}"></iframe><script>
        const vote = {{rater: "Ann", position: 0, question: "text", answer: "left", seconds: 1}};
        const body = JSON.stringify(vote);
        const headers = {{"Content-Type": "application/json"}};
        const ask = (path, how) => fetch("{server.address}" + path, how)
          .then((answer) => answer.text()).catch(() => "refused");
        Promise.all([
          ask("vote", {{method: "POST", mode: "no-cors", body}}),
          ask("vote", {{method: "POST", headers, body}}),
          ask("state?rater=Eve"),
        ]).then((all) => {{ window.all = all; }});
        </script>"""
    )
    page, _ = opened(browser)
    page.goto(evil.as_uri())
    page.wait_for_function("() => window.all")
    assert page.evaluate("window.all")[1:] == ["refused", "refused"]
    assert Votes(study).all() == [] and Votes(study).names() == {}
    page.close()
