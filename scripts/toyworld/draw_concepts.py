"""Draw the concepts' pictures and masks into the package again.

python scripts/toyworld/draw_concepts.py
"""

from __future__ import annotations

import shutil

from tlora_cli.builtin import PICTURES
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.export import write_concept


def main() -> None:
    for name in CONCEPTS:
        folder = PICTURES / name
        if folder.exists():
            shutil.rmtree(folder)
        write_concept(folder, name)
        print(folder)


if __name__ == "__main__":
    main()
