#!/usr/bin/env python3
"""Write tiny pipelines of every family with random weights, in the diffusers folder format.

    python scripts/make_tiny_models.py OUT [--family NAME|all] [--seed 0]

They have every part of the real models (text encoders, tokenizers, VAE, denoiser, scheduler) in a
few megabytes, need no download, and draw noise: the weights are random. The demo and the
tests train on them, so that everything but the quality of the pictures is checked on any computer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tlora_cli.cli.quiet import hush_libraries

hush_libraries()

from diffusers import DiffusionPipeline
from tiny_models import flux, flux2, krea2, qwen_image, qwen_image_21, sd3, sdxl, z_image
from tiny_models.writing import refuse_contents, write_pipeline
from transformers.utils.logging import disable_progress_bar


@dataclass(frozen=True)
class Writer:
    """Writes a family's pipeline, for pictures of 64 to 128 pixels, into a folder.

    Attributes:
        make: the pipeline.
        named: part -> the class of transformers that its index says, where that is another one.
    """

    make: Callable[[], DiffusionPipeline]
    named: dict[str, str] = field(default_factory=dict)

    def __call__(self, folder: Path, seed: int = 0) -> None:
        """Write the folder.

        Args:
            folder: the new folder; it may exist if it is empty.
            seed: seed of the weights; the same seed gives the same bytes.

        Raises:
            FileExistsError: if `folder` holds anything.
        """
        write_pipeline(self.make, Path(folder), seed, self.named)


write_tiny_sdxl = Writer(sdxl.make)
write_tiny_flux = Writer(flux.make)
write_tiny_flux2 = Writer(flux2.make)
write_tiny_z_image = Writer(z_image.make)
write_tiny_qwen_image = Writer(qwen_image.make)
write_tiny_sd3 = Writer(sd3.make)
write_tiny_krea2 = Writer(krea2.make)
# Its processor reads texts alone: one that also reads pictures needs one more package.
write_tiny_qwen_image_21 = Writer(qwen_image_21.make, {"processor": "Qwen3VLProcessor"})

WRITERS: dict[str, Writer] = {
    "sdxl": write_tiny_sdxl,
    "flux": write_tiny_flux,
    "flux2": write_tiny_flux2,
    "z_image": write_tiny_z_image,
    "sd3": write_tiny_sd3,
    "qwen_image": write_tiny_qwen_image,
    "krea2": write_tiny_krea2,
    "qwen_image_21": write_tiny_qwen_image_21,
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write tiny models with random weights.")
    parser.add_argument("out", type=Path, help="folder to write tiny-sdxl, tiny-flux, ... into")
    parser.add_argument("--family", choices=(*WRITERS, "all"), default="all")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights (default 0)")
    options = parser.parse_args(arguments)
    disable_progress_bar()
    families = list(WRITERS) if options.family == "all" else [options.family]
    folders = {family: options.out / f"tiny-{family}" for family in families}
    try:
        for folder in folders.values():
            refuse_contents(folder)
        for family, folder in folders.items():
            WRITERS[family](folder, options.seed)
            size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
            print(f"wrote {folder} ({size / 1e6:.1f} MB)")
    except OSError as error:
        print(f"make_tiny_models: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
