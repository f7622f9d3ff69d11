"""A Markdown text as a page of its own: its pictures stand in it, and nothing else is loaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tlora_cli.foundation.errors import UserError
from tlora_cli.foundation.pages.data_urls import thumbnail_url
from tlora_cli.foundation.pages.templates import render
from tlora_cli.foundation.pictures import read_picture

if TYPE_CHECKING:
    from markdown_it.token import Token

SIDE = 900
"""Longest side of a picture in pixels."""
BREAK = "&lt;br&gt;"
"""The one piece of HTML that our own texts have, in cells of tables, as it is escaped."""


def markdown_page(text: str, folder: Path, title: str) -> str:
    """Return the page of a text; HTML in it stays text.

    Args:
        text: Markdown with tables; a YAML head is left out.
        folder: that its pictures are relative to; others are named instead of shown.
        title: of the page.
    """
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    reader = MarkdownIt("commonmark", {"html": False, "xhtmlOut": False}).enable("table")
    tokens = reader.parse(re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL))
    for token in tokens:
        for one in token.children or ():
            if one.type == "image":
                _embed(one, folder)
    made = reader.renderer.render(tokens, reader.options, {}).replace(BREAK, "<br>")
    for tag in ("table", "pre"):  # wide ones scroll by themselves
        made = made.replace(f"<{tag}>", f'<div class="wide" tabindex="0"><{tag}>')
        made = made.replace(f"</{tag}>", f"</{tag}></div>")
    return render("foundation/pages/markdown.html.jinja", title=title, text=Markup(made))


def _embed(image: Token, folder: Path) -> None:
    """Put a picture into its token; of one that isn't there, its text."""
    file = folder / str(image.attrs.get("src", ""))
    try:
        url = thumbnail_url(read_picture(file, str(file), "RGB"), SIDE)
    except UserError:
        image.type, image.content, image.children = "text", image.content, None
        return
    image.attrs["src"] = url
