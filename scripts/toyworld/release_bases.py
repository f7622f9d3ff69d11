"""Put the trained bases into the package, from the checkpoints in the work folder.

    python scripts/toyworld/release_bases.py [--work toyworld-work] [--base toy-sdxl]

Each comes with its figures: the gate's TS* on 1,000 pictures, the VAE's round trip, and ID* of the
concepts before anything is learned. About 4 minutes a base on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from bases import base_of
from release import add_figures, release
from torch import Tensor

from tlora_cli.toyworld import scores
from tlora_cli.toyworld.concepts import CONCEPTS
from tlora_cli.toyworld.factors import ATTRIBUTES, chance

BASES = ("toy-sdxl", "toy-flux")
CARD = {
    "toy-sdxl": """
A StableDiffusionXLPipeline in small: two CLIP text encoders, a VAE of factor 4 with 4 channels, and
a UNet of three levels, the first without attention. It learned from drawings of seen combinations
(no held-out pair; `tlora_cli/toyworld/factors.py`) and their captions, a tenth of them left out,
with its early states aligned to toy-vit's patch tokens. Its noise schedule has zero terminal SNR
and it predicts v. The VAE learned with noise on its latents, losses on edges and on the judge's
first two blocks, and a critic of patches. Its decoder then grew, and learned to draw sharply what
the UNet leaves smeared; the encoder's share of the new layers does nothing.

In a recipe: `base: toy-sdxl`. Made by `scripts/toyworld/train_vae.py`, `train_sdxl.py` and
`refine_decoder.py`.
""",
    "toy-flux": """
A FluxPipeline in small: CLIP and T5 text encoders, a VAE of factor 4, and a transformer of two
double and four single blocks, 128 wide. It learned rectified flow from 24,000 drawings of seen
combinations (no held-out pair; `tlora_cli/toyworld/factors.py`) and their captions, a tenth of them
left out, with its early states aligned to toy-vit's patch tokens; then classifier-free guidance was
distilled into its guidance input.

In a recipe: `base: toy-flux`. Made by `scripts/toyworld/train_vae.py` and `train_flux.py`.
""",
}


def round_trip(work: Path, vae: Any) -> dict[str, str]:
    """Return how often the judge reads the same before and after the VAE, by attribute."""
    from pictures import load

    from tlora_cli.toyworld.reading import load_judge

    pixels = load(work, "any-test", 2_000).tensor(slice(0, 1_000))
    with torch.no_grad():
        parts: list[Tensor] = [
            vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1)
            for part in torch.split(pixels, 64)
        ]
    judge = load_judge()
    pairs = list(zip(judge.read(pixels), judge.read(torch.cat(parts)), strict=True))
    return {
        f"VAE keeps {name}": str(scores.rate([one[name] == two[name] for one, two in pairs]))
        for name in ATTRIBUTES
    }


def before(base: str) -> dict[str, str]:
    """Return ID* of all concepts together before anything is learned, and by chance."""
    from tlora_cli.foundation.devices import choose_device
    from tlora_cli.toyworld.studio import Studio
    from tlora_cli.toyworld.suites import base_prompt

    room = Studio(base, choose_device("auto", "fp32", None))
    right = []
    for concept in CONCEPTS.values():
        drawn = room.draw(base_prompt(concept, 15), concept=f"sks {concept.class_name}")
        right += [scores.identity_right(one.reading, concept.values) for one in drawn]
    expected = [chance(one.marking, one.feature) for one in CONCEPTS.values()]
    return {
        "ID* before adapting, all concepts": str(scores.rate(right)),
        "ID* by chance": f"{sum(expected) / len(expected):.3f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--base", choices=BASES, action="append", help="default: both")
    parser.add_argument("--count", type=int, default=1000, help="pictures of each kind")
    options = parser.parse_args()
    from tlora_cli.toyworld.base_accuracy import measure

    for base in options.base or BASES:
        pipeline, facts = base_of(options.work, base)
        facts |= round_trip(options.work, pipeline.vae)
        halved = pipeline.to(torch.float16)
        folder = release(base, halved.save_pretrained, CARD[base], facts)
        gate = measure(base, options.count)
        print(gate, flush=True)
        figures = {f"TS* {kind} ({gate.settings})": str(rate) for kind, rate in gate.whole.items()}
        for kind, parts in gate.parts.items():
            figures |= {f"{kind}: {name}": f"{rate.value:.3f}" for name, rate in parts.items()}
        figures["pictures of each kind"] = str(options.count)
        add_figures(folder, {**figures, **before(base)})


if __name__ == "__main__":
    main()
