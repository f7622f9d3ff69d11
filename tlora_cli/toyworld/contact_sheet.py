"""Contact sheets: pictures with words under each."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from tlora_cli.toyworld.factors import SIZE

LINE = 13
MARGIN = 8


def labelled_sheet(
    items: Sequence[tuple[Image.Image, Sequence[tuple[str, str]]]], columns: int, zoom: int = 2
) -> Image.Image:
    """Return one picture with all pictures in a grid.

    Args:
        items: a picture and its lines of text, each with its color.
        columns: pictures in a row.
        zoom: times each picture is enlarged, without smoothing.
    """
    side = SIZE * zoom
    lines = max((len(texts) for _, texts in items), default=0)
    width, height = side + MARGIN, side + lines * LINE + MARGIN
    rows = -(-len(items) // columns)
    sheet = Image.new("RGB", (MARGIN + columns * width, MARGIN + rows * height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (picture, texts) in enumerate(items):
        x = MARGIN + number % columns * width
        y = MARGIN + number // columns * height
        sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (x, y))
        for row, (text, color) in enumerate(texts):
            pen.text((x, y + side + row * LINE), text, color, font)
    return sheet
