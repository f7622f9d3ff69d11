"""Draw the concepts' pictures and masks into the package, and their sheet into the docs, again.

python scripts/toyworld/draw_concepts.py
"""

from __future__ import annotations

import shutil
from pathlib import Path

from PIL import Image

from tlora_cli.toyworld.bundle import BUNDLE
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.contact_sheet import labelled_sheet
from tlora_cli.toyworld.export import write_concept

SHEET = Path(__file__).resolve().parents[2] / "docs" / "images" / "concepts.png"
BLACK = "#1c1c1c"


def main() -> None:
    items = []
    for name, concept in CONCEPTS.items():
        folder = BUNDLE.pictures / name
        if folder.exists():
            shutil.rmtree(folder)
        write_concept(folder, name)
        print(folder)
        words = [
            (f"{name}: {concept.color} {concept.class_name}", BLACK),
            (concept.marking, BLACK),
            (concept.feature, BLACK),
        ]
        with Image.open(folder / "1.png") as first, Image.open(folder / "mask-1.png") as mask:
            items += [(first.convert("RGB"), words), (mask.convert("RGB"), [("mask", BLACK)])]
        for number in (2, 3, 4):
            with Image.open(folder / f"{number}.png") as other:
                items.append((other.convert("RGB"), [(f"picture {number}", BLACK)]))
    labelled_sheet(items, columns=10).save(SHEET, optimize=True)


if __name__ == "__main__":
    main()
