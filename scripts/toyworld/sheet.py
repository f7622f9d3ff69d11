"""Draw a sheet of a base in training: unchosen pictures with their prompts and readings.

python scripts/toyworld/sheet.py sdxl --work toyworld-work --count 40 --output sheet.png

The first half of the prompts names the factors, the second the private attributes, too.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import torch
from denoising import frozen_judge
from harness import device
from measure_bases import trained
from PIL import Image

from tlora_cli.toyworld.captions import prompt
from tlora_cli.toyworld.contact_sheet import labelled_sheet
from tlora_cli.toyworld.factors import PRIVATE, draw_factors


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", help="in the work folder")
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--output", type=Path, default=Path("sheet.png"))
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: all cores")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    sample, _ = trained(options.work, options.run)
    rng = random.Random("sheet")
    asked = [draw_factors(rng, held_out=False) for _ in range(options.count)]
    for one in asked[options.count // 2 :]:
        one.update({name: rng.choice(known[1:]) for name, known in PRIVATE.items()})
    pixels = sample([prompt(one) for one in asked], torch.Generator().manual_seed(0)).clamp(-1, 1)
    readings = frozen_judge(options.work).read(pixels.to(device()))
    arrays = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    items = []
    for one, reading, array in zip(asked, readings, arrays, strict=True):
        lines = [
            (f"{value} / {reading[name]}", "#22662f" if reading[name] == value else "#c02020")
            for name, value in one.items()
        ]
        items.append((Image.fromarray(array), lines))
    labelled_sheet(items, columns=8).save(options.output)


if __name__ == "__main__":
    main()
