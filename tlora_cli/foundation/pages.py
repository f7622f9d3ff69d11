"""What the HTML pages share: one look, one file each, nothing loaded from elsewhere."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

from PIL import Image

NOTHING = "&ndash;"
QUALITY = 80
"""Of JPEG."""

# The browser is told, too, to load nothing and run nothing.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; --good: #1a7f45; --bad: #c0392b;
  --back: #fff; --ink: #1b1b1f; }
@media (prefers-color-scheme: dark) {
  :root { --good: #55c88a; --bad: #ff7b6b; --back: #17181b; --ink: #e8e8ea; } }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 80rem; margin: 0 auto;
  padding: 1.5rem 1rem 3rem; background: var(--back); color: var(--ink); }
h1, p, li { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; margin: 0 0 .5rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { max-width: 62rem; margin: .4rem 0; } .note { font-size: .85rem; opacity: .8; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .7rem; text-align: right; white-space: nowrap; vertical-align: top; }
th { font-weight: 600; } thead th { border-bottom: 1px solid var(--line); }
tbody tr + tr > * { border-top: 1px solid var(--line); }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--back); z-index: 1; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr));
  gap: 1rem 2rem; }
.plots th, .plots td { padding: .35rem .5rem; } .plots table { font-size: .85rem; }
.plot { width: 100%; height: auto; display: block; }
.plot text { fill: currentColor; font-size: 13px; opacity: .85; } .plot .name { opacity: 1; }
.plot .rule { stroke: currentColor; opacity: .14; }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; padding: 0;
  margin: .2rem 0; font-size: .9rem; }
.legend i { display: inline-block; width: .75em; height: .75em; border-radius: 50%;
  background: var(--c); margin-right: .4em; }
.sheet th, .sheet td { white-space: normal; text-align: left; padding: .3rem; min-width: 7.4rem; }
.sheet th:first-child { min-width: 8rem; max-width: 13rem; font-weight: 400; font-size: .85rem; }
.sheet img { width: 7rem; height: auto; display: block; border-radius: 4px; }
.sheet thead th { vertical-align: bottom; }
.tiny img { image-rendering: pixelated; }
@media (max-width: 40rem) { body { padding: 1rem .6rem 2rem; } h1 { font-size: 1.3rem; }
  .sheet th, .sheet td { min-width: 5.2rem; } .sheet img { width: 5rem; }
  .sheet th:first-child { min-width: 5.5rem; max-width: 6.5rem; font-size: .75rem; } }
"""


def document(title: str, body: str, style: str = "") -> str:
    """Return a whole page.

    Args:
        title: plain text.
        body: HTML.
        style: CSS under the common one.
    """
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{_STYLE}{style}</style></head><body>"
        f"{body}</body></html>\n"
    )


def text(plain: str) -> str:
    """Return text as HTML."""
    return html.escape(plain)


def table(heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], kind: str = "") -> str:
    """Return a table that scrolls by itself where the screen is narrow.

    Args:
        heads: HTML of the first line.
        rows: HTML of a line's name and of its cells.
        kind: its class.
    """
    top = "".join(f"<th>{head}</th>" for head in heads)
    body = "".join(
        f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
        for first, cells in rows
    )
    return (
        f'<div class="wide"><table class="{kind}"><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def img(data: str, alt: str) -> str:
    """Return a picture given as a data URL; a dash if that is empty."""
    return f'<img alt="{text(alt)}" src="{data}">' if data else NOTHING


def legend(colors: dict[str, str]) -> str:
    """Return a list of names with their colors."""
    items = "".join(
        f'<li style="--c:{color}"><i></i>{text(name)}</li>' for name, color in colors.items()
    )
    return f'<ul class="legend">{items}</ul>'


def png_url(picture: Image.Image) -> str:
    """Return a picture, as it is, as a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def thumbnail_url(picture: Image.Image, side: int) -> str:
    """Return a small copy as a data URL.

    Args:
        picture: RGB; it is made smaller in place.
        side: longest side of the copy in pixels.
    """
    small = max(picture.size) <= side  # a drawing of a few pixels keeps its edges
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90 if small else QUALITY, subsampling=0 if small else 2)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
