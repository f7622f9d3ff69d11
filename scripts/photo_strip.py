"""Draw what one picture teaches, by recipe: the same prompts and seeds under each other.

    tlora compare configs/lab/photo.yaml --only seed=0 --only concept=boo
    python scripts/photo_strip.py boo --output docs/images/photo.png

Every third of the concept's prompts, in their order, not chosen.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tlora_cli.toyworld.bundle import BUNDLE

ROOT = Path(__file__).resolve().parent.parent
ARMS = (
    ("LoRA", "lora", "paper"),
    ("T-LoRA\nas published", "tlora", "paper"),
    ("T-LoRA,\nrecipe: photo", "tlora", "photo"),
)
SIDE, MARGIN, LINE, LEFT, EVERY, COLUMNS = 160, 10, 20, 130, 3, 6


def drawn(runs: Path, method: str, variant: str, concept: str) -> list[tuple[str, Image.Image]]:
    """Return prompt and picture of a cell, in the order of its prompts.

    Raises:
        SystemExit: if the cell is not there.
    """
    found = sorted(runs.glob(f"cells/{method}-*-{variant}-{concept}-s0/evaluation"))
    if len(found) != 1:
        raise SystemExit(f"{runs} holds {len(found)} cells of {method}, {variant}, {concept}")
    with (found[0] / "pictures.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["group"] == "suite"]
    chosen = rows[::EVERY][:COLUMNS]
    return [(row["prompt"], Image.open(found[0] / row["file"]).convert("RGB")) for row in chosen]


def strip(runs: Path, concept: str) -> Image.Image:
    """Return the training picture, and a row of pictures for each arm."""
    rows = [(name, drawn(runs, method, kind, concept)) for name, method, kind in ARMS]
    top = 3 * LINE + MARGIN
    left = MARGIN + SIDE + MARGIN + LEFT
    size = left + COLUMNS * (SIDE + MARGIN), top + len(rows) * (SIDE + MARGIN)
    sheet = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)

    def put(picture: Image.Image, x: int, y: int) -> None:
        sheet.paste(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))

    middle = top + (len(rows) * (SIDE + MARGIN) - SIDE) // 2
    put(Image.open(BUNDLE.pictures / concept / "1.png").convert("RGB"), MARGIN, middle)
    pen.text((MARGIN, middle - LINE - 4), "learned from", "black", font)
    for number, (name, pictures) in enumerate(rows):
        y = top + number * (SIDE + MARGIN)
        pen.text((MARGIN + SIDE + MARGIN, y + SIDE // 2 - LINE), name, "black", font)
        for column, (prompt, picture) in enumerate(pictures):
            x = left + column * (SIDE + MARGIN)
            put(picture, x, y)
            if number == 0:
                words = prompt.split(", ")[1:]
                pen.multiline_text((x, MARGIN // 2), "\n".join(words), "black", font)
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("concept")
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "lab" / "photo")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    strip(options.runs, options.concept).save(options.output, optimize=True)
    print(f"wrote {options.output}")


if __name__ == "__main__":
    main()
