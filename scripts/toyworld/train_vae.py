"""Train the VAEs of the base models: factor 4 for toy-flux, then 8 for toy-sdxl.

    python scripts/toyworld/train_vae.py [--work toyworld-work]

Loss: absolute and squared error of the pixels, and a little KL divergence. About 8 and 15
minutes on two cores. The second begins with the outer levels of the first; its decoder is then
trained on by itself, on whole pictures, because small markings suffer most from eight-fold
shrinking. The latents stay as they are, so a denoiser may be trained before that.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from architectures import FLUX_FACTOR, SDXL_FACTOR
from architectures import vae as make_vae
from denoising import decoder_name, load_averaged, load_vae, vae_name
from diffusers import AutoencoderKL
from harness import Plan, Run, arguments, device
from pictures import Pictures, load
from torch import Tensor
from torch.nn import functional

from tlora_cli.toyworld.factors import ATTRIBUTES
from tlora_cli.toyworld.judge import Judge

BATCH = 16
WHOLE_FROM = 0.7
"""Share of the steps after which pictures are whole; before, quarters: as many places, four times
as many pictures."""
EDGES = 2.0
"""Weight of the error of differences between neighbors when the decoder is refined: faint dots
and stripes are all edge and little area."""
LOOKS = 2.0
"""Weight of the perceptual loss: what the judge's first two blocks make of the picture, as LPIPS
takes the first blocks of a classifier."""
KL_WEIGHT = 2e-4
"""Per number of the latent, against an error per number of the picture."""


def main() -> None:
    options = arguments(__doc__, steps=4000)
    train(options, FLUX_FACTOR, options.steps)
    train(options, SDXL_FACTOR, 2 * options.steps)
    refine(options, SDXL_FACTOR, 2 * options.steps)


def train(options: argparse.Namespace, factor: int, steps: int) -> None:
    """Train the VAE of a factor."""
    pictures = load(options.work, "seen", 24_000)
    test = load(options.work, "any-test", 512)
    vae = make_vae(factor).to(device())
    if factor == SDXL_FACTOR:
        take_outer_levels(vae, load_vae(options.work, FLUX_FACTOR))
    judge = trained_judge(options.work)
    plan = Plan(
        vae_name(factor),
        steps,
        lr=2e-3,
        average=0.995,
        bf16=True,
        evaluate_every=400,
        save_every=250,
    )
    run = Run(plan, vae, options.work, options.seed)

    def loss(generator: torch.Generator) -> Tensor:
        whole = run.step >= WHOLE_FROM * steps
        count, side = (BATCH // 4, 64) if whole else (BATCH, 32)
        chosen = torch.randint(len(pictures), (count,), generator=generator)
        pixels = pictures.tensor(chosen).to(device())
        top, left = torch.randint(64 - side + 1, (2,), generator=generator).tolist()
        pixels = pixels[..., top : top + side, left : left + side]
        posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels)
        error = (vae.decode(posterior.mean + posterior.std * noise).sample - pixels).float()
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).float().mean()
        return error.abs().mean() + (error**2).mean() + KL_WEIGHT * kl

    run.train(loss, lambda: kept(vae, test, judge))


def refine(options: argparse.Namespace, factor: int, steps: int) -> None:
    """Train the decoder of a trained VAE on, with the encoder as it is."""
    pictures = load(options.work, "seen", 24_000)
    test = load(options.work, "any-test", 1024)
    vae = load_vae(options.work, factor, refined=False)
    vae.decoder.requires_grad_(True)
    vae.post_quant_conv.requires_grad_(True)
    plan = Plan(
        decoder_name(factor),
        steps,
        lr=1e-3,
        average=0.998,
        bf16=True,
        evaluate_every=500,
        save_every=500,
    )
    run = Run(plan, vae, options.work, options.seed)
    judge = trained_judge(options.work)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (BATCH // 2,), generator=generator)
        pixels = pictures.tensor(chosen).to(device())
        with torch.no_grad():
            posterior = vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels)
        error = (vae.decode(posterior.mean + posterior.std * noise).sample - pixels).float()
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        seen = impressions(judge, error + pixels)
        with torch.no_grad():
            wanted = impressions(judge, pixels)
        looks = sum(functional.mse_loss(a, b) for a, b in zip(seen, wanted, strict=True))
        return error.abs().mean() + (error**2).mean() + EDGES * edges + LOOKS * looks

    run.train(loss, lambda: kept(vae, test, judge))


def impressions(judge: Judge, pixels: Tensor) -> list[Tensor]:
    """Return what the first two blocks of the judge answer, normalized over channels."""
    found = []
    for number, layer in enumerate(judge.trunk[:12]):
        pixels = layer(pixels)
        if number in (5, 11):
            found.append(functional.normalize(pixels.float(), dim=1) * pixels.shape[1] ** 0.5)
    return found


def trained_judge(work: Path) -> Judge:
    """Return the judge that train_judge.py left in the work folder."""
    judge: Judge = load_averaged(Judge(), work / "judge.pt")
    return judge


@torch.no_grad()
def kept(vae: AutoencoderKL, test: Pictures, judge: Judge) -> dict[str, float]:
    """Return the error of the round trip, and how often the judge reads the same after it."""
    pixels = test.tensor(slice(None)).to(device())
    means = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(64)])
    back = torch.cat([vae.decode(part).sample for part in means.split(64)]).clamp(-1, 1)
    scores = {
        "error": (back - pixels).abs().mean().item(),
        "spread": means.std().item(),
        "mean": means.mean().item(),
    }
    before, after = judge.read(pixels), judge.read(back)
    for name in ATTRIBUTES:
        same = [one[name] == two[name] for one, two in zip(before, after, strict=True)]
        scores[name] = sum(same) / len(same)
    return {name: round(value, 4) for name, value in scores.items()}


def take_outer_levels(vae: AutoencoderKL, outer: AutoencoderKL) -> None:
    """Copy what fits of a VAE with one level less: down blocks from the pixels on, and back."""
    weights = dict(outer.state_dict())
    for name in list(weights):  # up blocks are counted from the inside
        part, found, rest = name.partition("up_blocks.")
        if found:
            number, _, rest = rest.partition(".")
            weights[f"{part}up_blocks.{int(number) + 1}.{rest}"] = weights.pop(name)
    own = vae.state_dict()
    fitting = {
        name: tensor
        for name, tensor in weights.items()
        if name in own and own[name].shape == tensor.shape and "mid_block" not in name
    }
    vae.load_state_dict({**own, **fitting})


if __name__ == "__main__":
    main()
