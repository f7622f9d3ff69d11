"""The sheet: pictures in rows and columns, their labels, and what is the same in all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageDraw, ImageFont

LEAST, MOST = 192, 512
"""Longest side of a picture on the sheet in pixels: small drawings are enlarged, photographs are
made smaller."""
GAP, EDGE = 8, 20
TITLE, LABEL, FOOT = 20, 17, 14
"""Sizes of the letters."""
INK, FAINT, PAPER = "#1b1b1f", "#5a5a60", "white"


@dataclass(frozen=True)
class Block:
    """A prompt and its pictures.

    Attributes:
        prompt: as the user wrote it.
        pictures: rows of columns.
    """

    prompt: str
    pictures: Sequence[Sequence[Image.Image]]


def side_on_sheet(width: int, height: int) -> tuple[int, int]:
    """Return a picture's size on the sheet; small ones grow by whole factors and stay sharp."""
    longest = max(width, height)
    if longest < LEAST:
        factor = -(-LEAST // longest)
        return width * factor, height * factor
    if longest > MOST:
        return max(1, round(width * MOST / longest)), max(1, round(height * MOST / longest))
    return width, height


def lay_out(
    blocks: Sequence[Block], rows: Sequence[str], columns: Sequence[str], foot: str
) -> Image.Image:
    """Return the sheet, RGB.

    Args:
        blocks: one for each prompt, below one another.
        rows: labels beside the rows; empty ones take no room.
        columns: labels above the columns, likewise.
        foot: what is the same in all pictures.
    """
    cell = side_on_sheet(*blocks[0].pictures[0][0].size)
    small, title, little = (ImageFont.load_default(size) for size in (LABEL, TITLE, FOOT))
    left = EDGE + _widest(rows, small)
    width = max(left + len(columns) * (cell[0] + GAP) - GAP + EDGE, 420)
    inside = width - 2 * EDGE
    heads = [_lines(block.prompt, title, inside) for block in blocks]
    foot_lines = _lines(foot, little, inside)
    tops = [_lines(label, small, cell[0]) for label in columns]
    above = max(len(one) for one in tops) * (LABEL + 4) + 6 if any(columns) else 0
    heights = [
        len(head) * (TITLE + 6) + 8 + above + len(rows) * (cell[1] + GAP) + GAP for head in heads
    ]
    height = EDGE + sum(heights) + len(foot_lines) * (FOOT + 6) + EDGE
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    y = EDGE
    for block, head, tall in zip(blocks, heads, heights, strict=True):
        place = _text(pen, head, (EDGE, y), title, INK, TITLE + 6) + 8
        for column, lines in enumerate(tops):
            if any(columns):
                x = left + column * (cell[0] + GAP)
                start = place + above - 6 - len(lines) * (LABEL + 4)
                _text(pen, lines, (x, start), small, INK, LABEL + 4)
        place += above
        for row, pictures in enumerate(block.pictures):
            if rows[row]:
                middle = place + cell[1] // 2 - (LABEL + 4) // 2
                pen.text((EDGE, middle), rows[row], INK, small)
            for column, picture in enumerate(pictures):
                small_one = picture.size[0] * picture.size[1] < cell[0] * cell[1]
                way = Image.Resampling.NEAREST if small_one else Image.Resampling.LANCZOS
                shown = picture if picture.size == cell else picture.resize(cell, way)
                sheet.paste(shown, (left + column * (cell[0] + GAP), place))
            place += cell[1] + GAP
        y += tall
    _text(pen, foot_lines, (EDGE, y), little, FAINT, FOOT + 6)
    return sheet


def _widest(labels: Sequence[str], font: Any) -> int:
    """Return the room of the row labels, the gap behind them included."""
    widest = max((font.getlength(label) for label in labels), default=0)
    return int(widest) + 14 if widest else 0


def _lines(text: str, font: Any, width: int) -> list[str]:
    """Return a text in lines of at most `width` pixels; a word that is longer is cut."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] = f"{lines[-1]} {word}"
            continue
        while font.getlength(word) > width and len(word) > 1:
            word = f"{word[:-2]}\N{HORIZONTAL ELLIPSIS}" if len(word) > 2 else word[:1]
        lines.append(word)
    return lines


def _text(
    pen: ImageDraw.ImageDraw,
    lines: Sequence[str],
    place: tuple[int, int],
    font: Any,
    color: str,
    step: int,
) -> int:
    """Write lines and return the height below them."""
    x, y = place
    for line in lines:
        pen.text((x, y), line, color, font)
        y += step
    return y
