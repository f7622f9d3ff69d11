"""Teach the decoder of a base's VAE to draw sharply what the denoiser leaves smeared.

    python scripts/toyworld/refine_decoder.py toy-sdxl [--work toyworld-work]

The encoder and with it the latents stay as they are, and all that was trained on them. The decoder
grows first: a layer at each size, and attention in the middle, as SDXL's has. It learns from three
kinds of latents: of drawings, with a little noise; of drawings that the base has drawn again from a
part of the noise, which look like its own and still have a drawing to be like; and of pictures that
are all its own, which have none, so that only their coarse colors hold them. Two critics of patches
say what is sharp. The judge plays no part. The result is the VAE of the work folder.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from architectures import TEXT_LENGTH
from bases import base_of, short
from denoising import PICTURES, load_vae, vae_name
from diffusers import AutoencoderKL, FluxImg2ImgPipeline, StableDiffusionXLImg2ImgPipeline
from harness import Plan, Run, arguments, device
from pictures import Pictures, load, save_array
from torch import Tensor, nn
from torch.nn import functional
from train_sdxl import GUIDANCE, STEPS
from vae_losses import PatchCritic, criticized, edge_error
from windows import PIXELS, corners, cut

from tlora_cli.families.patches import unpack
from tlora_cli.foundation.bundled import bases
from tlora_cli.toyworld.captions import caption
from tlora_cli.toyworld.sharpness import laplacian, patch_distance

STRENGTHS = (0.2, 0.3, 0.4, 0.5, 0.6, 1.0)
"""Shares of the noise from which drawings are drawn again; from all of it, what comes is the base's
own."""
EACH = 1500
"""Drawings of each."""
BATCH = 16
CLEAN, OWN = 0, 3
"""A picture of four in a batch is a drawing, and one is the base's own; the other two are drawn
again."""
WHOLE_FROM = 0.75
"""Share of the steps from which whole pictures are decoded, and a quarter as many; before it
windows of 8 x 8 places, mostly on subjects."""
NEAR_SUBJECT = 0.6
"""Share of the batches of windows that lie on subjects."""
CALM = 0.1
"""Largest noise on the latents of drawings, in terms of their spread."""
EDGES, CRITIC, CRITIC_FROM = 2.0, 0.05, 0.05
"""Weights of the errors of edges and of the critics, beside the pixels' 1, and the share of the
steps from which the critics count. With four times as much, whole skies became rough."""
COARSE = 4
"""Pixels over which the mean colors of what the base drew must stay."""


class Trained(nn.Module):
    """The VAE, of which only the decoder learns, and the critics of near and of far."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae.requires_grad_(False)
        self.vae.decoder.requires_grad_(True)
        self.vae.post_quant_conv.requires_grad_(True)
        self.near, self.far = PatchCritic(48), PatchCritic(48)

    def criticized(self, made: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's loss and the critics' own of pictures (B, 3, H, W) in [-1, 1]."""
        near = criticized(self.near, made, real)
        halved = functional.avg_pool2d(made, 2), functional.avg_pool2d(real, 2)
        far = criticized(self.far, *halved)
        return near[0] + far[0], near[1] + far[1]


@torch.no_grad()
def grown(vae: AutoencoderKL) -> AutoencoderKL:
    """Return the same VAE with another layer at each size, and attention in the middle.

    What is new answers with zeros, so that nothing changes; in the encoder it stays so.
    """
    larger = AutoencoderKL.from_config(
        {**vae.config, "layers_per_block": 2, "mid_block_add_attention": True}
    )
    known = vae.state_dict()
    for name, part in larger.named_parameters():
        if name in known:
            part.copy_(known[name])
        elif "conv2." in name or "to_out.0." in name:
            part.zero_()
    return larger


def image_to_image(stock: Any) -> Any:
    """Return the stock pipeline from picture to picture with a base's parts."""
    flux = hasattr(stock, "transformer")
    kind: Any = FluxImg2ImgPipeline if flux else StableDiffusionXLImg2ImgPipeline
    pipeline = kind(**stock.components).to(device())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
def drawn_again(
    pipeline: Any, pictures: Pictures, numbers: range, strength: float, seed: int
) -> Tensor:
    """Return latents (N, C, 16, 16), as the VAE decodes them, of drawings drawn again.

    Args:
        pipeline: the base's stock one, from picture to picture.
        pictures: drawings and what is on them.
        numbers: of the drawings.
        strength: share of the noise; 1 leaves nothing of a drawing but its caption.
        seed: of the noise.
    """
    flux = isinstance(pipeline, FluxImg2ImgPipeline)
    latents = pipeline(
        [caption(pictures.named(number), random.Random(number)) for number in numbers],
        image=(pictures.tensor(slice(numbers.start, numbers.stop)) + 1) / 2,
        strength=strength,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **({"height": 64, "width": 64, "max_sequence_length": TEXT_LENGTH} if flux else {}),
    ).images.cpu()
    if flux:
        latents = unpack(latents, 16, 16)
    config = pipeline.vae.config
    return latents / config.scaling_factor + (config.shift_factor or 0.0)


def redrawn(work: Path, base: str, pictures: Pictures, each: int) -> Tensor:
    """Return latents (strengths, each, C, 16, 16); row s is of drawings s * each and on.

    They are kept in the work folder, so that a stopped run doesn't draw them again.
    """
    file = work / f"redrawn-{base}-{each}.npy"
    if not file.exists():
        pipeline = image_to_image(base_of(work, base)[0])
        parts = []
        for row, strength in enumerate(STRENGTHS):
            for first in range(row * each, (row + 1) * each, 50):
                numbers = range(first, min(first + 50, (row + 1) * each))
                parts.append(drawn_again(pipeline, pictures, numbers, strength, seed=first))
            print(f"drawn again from {strength} of the noise", flush=True)
        latents = torch.cat(parts)
        save_array(file, latents.view(len(STRENGTHS), each, *latents.shape[1:]).half().numpy())
    return torch.from_numpy(np.load(file)).float()


class Batch(NamedTuple):
    """Examples that a step learns from.

    Attributes:
        latents: (B, C, h, w), as the VAE decodes them.
        pixels: (B, 3, 4h, 4w), what they are of; of the base's own, another of the same caption.
        alike: (B, 1, 1, 1), how much the pixels count: 1 for a drawing, 0 for the base's own.
        drawn: (B,) bool, which ones the base has drawn.
    """

    latents: Tensor
    pixels: Tensor
    alike: Tensor
    drawn: Tensor


class Examples:
    """Latents to decode, and the drawings.

    Args:
        pictures: the drawings.
        latents: of those that were drawn again, from `redrawn`.
        vae: as it was, to encode drawings with.
    """

    def __init__(self, pictures: Pictures, latents: Tensor, vae: AutoencoderKL) -> None:
        self.pictures, self.latents, self.vae = pictures, latents, vae
        self.each = latents.shape[1]
        self.tested = self.each // 10
        self.spread = latents[0].std()

    def batch(self, count: int, generator: torch.Generator, whole: bool) -> Batch:
        """Return examples of all kinds, whole or windows; the first tenth of each is for tests."""
        kinds = torch.arange(count) % 4
        rows = torch.randint(len(STRENGTHS) - 1, (count,), generator=generator)
        rows[kinds == OWN] = len(STRENGTHS) - 1
        which = torch.randint(self.tested, self.each, (count,), generator=generator)
        numbers = rows * self.each + which
        clean = kinds == CLEAN
        drawings = torch.randint(len(self.pictures), (int(clean.sum()),), generator=generator)
        numbers[clean] = drawings
        pixels = self.pictures.tensor(numbers)
        latents = self.latents[rows, which]
        latents[clean] = self._encoded(pixels[clean], generator)
        alike = (1 - torch.tensor(STRENGTHS)[rows]).square()
        alike[clean] = 1.0
        if not whole:
            positions = None
            if torch.rand((), generator=generator) < NEAR_SUBJECT:
                positions = [self.pictures.named(one)["position"] for one in numbers.tolist()]
            begin = corners(count, positions, generator)
            latents, pixels = cut(latents, begin, 1), cut(pixels, begin, PIXELS)
        where = device()
        alike = alike[:, None, None, None].to(where)
        return Batch(latents.to(where), pixels.to(where), alike, ~clean)

    @torch.no_grad()
    def _encoded(self, pixels: Tensor, generator: torch.Generator) -> Tensor:
        clean = self.vae.encode(pixels.to(device())).latent_dist.mean.cpu()
        noise = torch.randn(clean.shape, generator=generator)
        level = CALM * torch.rand(len(clean), 1, 1, 1, generator=generator)
        return clean + level * self.spread * noise

    @torch.no_grad()
    def scores(self, vae: AutoencoderKL) -> dict[str, float]:
        """Return how far the tests are from their drawings, and how sharp, by strength."""
        found, decoded = {}, []
        for row, strength in enumerate(STRENGTHS):
            first = row * self.each
            true = self.pictures.tensor(slice(first, first + self.tested))
            parts = self.latents[row, : self.tested].split(50)
            back = torch.cat([vae.decode(one.to(device())).sample.cpu() for one in parts])
            decoded.append(back.clamp(-1, 1))
            found[f"error {strength}"] = (decoded[-1] - true).abs().mean().item()
            found[f"laplacian {strength}"] = laplacian(decoded[-1]) / laplacian(true)
        others = self.pictures.tensor(slice(-len(decoded[-1]), None))
        found["patches"] = patch_distance(decoded[-1], others)
        return {name: round(value, 4) for name, value in found.items()}


def read_options() -> argparse.Namespace:
    """Read the command line."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("base", choices=list(bases()))
        parser.add_argument("--each", type=int, default=EACH, help="drawings drawn again, of each")

    return arguments(__doc__, 4000, more)


def main() -> None:
    options = read_options()
    work, base = options.work, options.base
    before = load_vae(work, short(base))
    if before.config.layers_per_block == 2:
        print(f"the decoder of {base} was refined already; it stays", flush=True)
        return
    pictures = load(work, "seen", PICTURES)
    examples = Examples(pictures, redrawn(work, base, pictures, options.each), before)
    model = Trained(grown(before)).to(device())
    plan = Plan(
        f"decoder-{base}",
        options.steps,
        lr=5e-4,
        average=0.998,
        every=100,
        evaluate_every=500,
        save_every=250,
        betas=(0.5, 0.99),
        bf16=device().type == "cuda",
    )
    run = Run(plan, model, work, options.seed)

    def loss(generator: torch.Generator) -> Tensor:
        whole = run.step >= WHOLE_FROM * options.steps
        batch = examples.batch(BATCH // 4 if whole else BATCH, generator, whole)
        made = model.vae.decode(batch.latents).sample.float()
        error = (made - batch.pixels) * batch.alike
        drawn = batch.drawn.to(made.device)
        with torch.no_grad():
            as_before = before.decode(batch.latents[drawn]).sample.float()
        coarse = functional.avg_pool2d(made[drawn] - as_before, COARSE)
        total = error.abs().mean() + EDGES * edge_error(error) + coarse.abs().mean()
        fooled, own = model.criticized(made, batch.pixels)
        weight = CRITIC if run.step >= CRITIC_FROM * options.steps else 0.0
        return total + weight * fooled + own

    if run.step == 0:
        scores = examples.scores(before)
        run.log({f"before: {name}": value for name, value in scores.items()})
    run.train(loss, lambda: examples.scores(model.vae))
    with run.averaged():
        model.vae.save_pretrained(work / vae_name(short(base)))


if __name__ == "__main__":
    main()
