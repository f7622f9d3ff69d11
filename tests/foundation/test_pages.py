"""Pages from templates: what strangers wrote stays text, and nothing is loaded from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

import tlora_cli
from tlora_cli.foundation.pages.templates import MOST_FRAMES, chosen_frames, part, render

PACKAGE = Path(tlora_cli.__file__).parent
TEMPLATES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.jinja"))
PARTS = "foundation/pages/parts.html.jinja"
ATTACK = '<script>alert("it\'s")</script>'


def test_the_templates_were_found() -> None:
    assert len(TEMPLATES) >= 8
    assert {PARTS, "comparison/page.html.jinja", "training/report/page.html.jinja"} <= set(
        TEMPLATES
    )


def test_what_is_given_is_text_and_what_a_macro_makes_is_html() -> None:
    made = part(PARTS, "table", heads=[ATTACK], rows=[(ATTACK, [ATTACK, 3])])
    assert "<script" not in made and made.count("&lt;script&gt;") == 3
    again = part(PARTS, "table", heads=[], rows=[("", [made])])
    assert made in again


def test_a_picture_that_is_not_there_is_a_dash() -> None:
    assert part(PARTS, "picture", url="", alt="a dog").strip() == "&ndash;"
    assert part(PARTS, "picture", url="data:,", alt='"').strip() == '<img alt="&#34;" src="data:,">'


def test_a_value_that_is_missing_or_unknown_is_an_error() -> None:
    with pytest.raises(Exception, match="'kind' is undefined"):
        render("comparison/page.html.jinja", title="t", concepts=[], seeds=1)
    with pytest.raises(TypeError, match="colour"):
        part(PARTS, "table", heads=[], rows=[], colour="red")


SERVED = {"studio/page.html.jinja", "study/rate.html.jinja", "study/served.html.jinja"}
"""Pages that a server of the program's own gives out, with a script and a style of its own."""


@pytest.mark.parametrize("template", TEMPLATES)
def test_no_template_loads_or_runs_anything_or_skips_escaping(template: str) -> None:
    text = (PACKAGE / template).read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b|autoescape|\bon\w+=|https?:|@import|\burl\(", text)
    for tag in re.findall(r"<(?:script|link)\b[^>]*>", text):
        assert template in SERVED
        assert re.search(r"""\b(?:src|href)="(?:/\w|data:)""", tag), (
            f"{tag} is not of the server's own"
        )


def test_the_base_forbids_what_pages_do_not_need() -> None:
    text = (PACKAGE / "foundation" / "pages" / "base.html.jinja").read_text(encoding="utf-8")
    assert '<meta http-equiv="Content-Security-Policy"\n  content="default-src \'none\';' in text
    made = render("foundation/pages/markdown.html.jinja", title="t", text="x")
    style = made.partition("<style>")[2].partition("</style>")[0]
    own = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"style-src-elem 'sha256-{own}'; base-uri 'none'; form-action 'none'"
    )
    assert style and f'content="{policy}">' in made


def test_a_slider_shows_the_ends_and_the_best_step_of_many() -> None:
    assert chosen_frames([0, 10, 20]) == [0, 10, 20]
    many = list(range(0, 1001, 10))
    found = chosen_frames(many, {330, 5})
    assert len(found) == MOST_FRAMES and found == sorted(found)
    assert {0, 330, 1000} <= set(found) <= set(many)
    assert max(b - a for a, b in pairwise(found)) <= 100


def test_the_library_is_imported_where_a_page_is_written() -> None:
    code = "import sys, tlora_cli.foundation.pages.templates\nassert 'jinja2' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True)
