"""Train toy-sdxl's VAE: four channels at 16 x 16 places, and not itself what blurs.

    python scripts/toyworld/train_vae.py [--work toyworld-work]

It begins with the outer layers of toy-flux's shipped VAE, which has eight channels at as many
places. Loss: absolute and squared errors of the pixels, absolute ones of their differences, what
the shipped judge's first two blocks see, a little KL divergence; and, once the pictures are right,
a critic of patches (`vae_losses.py`). Three quarters of the steps see quarters of pictures, the
rest whole ones. At the end the latents are given mean 0 and spread 1, and the VAE is kept in the
folder `vae-sdxl`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from architectures import vae as make_vae
from denoising import vae_name
from diffusers import AutoencoderKL
from harness import Plan, Run, arguments, device
from pictures import Pictures, load
from torch import Tensor, nn
from vae_losses import PatchCritic, center, criticized, edge_error, look_error

from tlora_cli.builtin import model_folder
from tlora_cli.toyworld.factors import ATTRIBUTES
from tlora_cli.toyworld.judge import Judge
from tlora_cli.toyworld.reading import load_judge
from tlora_cli.toyworld.sharpness import laplacian, patch_distance

BATCH = 16
WHOLE_FROM = 0.75
"""From this share of the steps on, whole pictures; before, quarters: as many places, four times as
many pictures."""
CRITIC_FROM = 0.3
"""From this share of the steps on, the critic counts."""
EDGES, LOOKS, CRITIC = 2.0, 0.5, 0.03
"""Weights of the errors of edges and of features and of the critic, beside the pixels' 1."""
NOISE, CALM, CALM_FROM = 0.25, 0.1, 0.575
"""Largest noise on the latents, in terms of their spread, in three of four pictures, and what it is
from a share of the steps on. A denoiser's latents are never quite right; so what matters must be
written large, and the decoder must know what a drawing looks like (Yang et al. 2025, "Latent
denoising makes good visual tokenizers"). With as much noise to the end, what lies on a subject
stayed muddy."""
KL_WEIGHT = 2e-4
"""Per number of the latent, against an error per number of the picture."""
PICTURES = 24_000


class Trained(nn.Module):
    """VAE and critic, which one optimizer and one checkpoint hold."""

    def __init__(self) -> None:
        super().__init__()
        self.vae = make_vae("sdxl")
        self.critic = PatchCritic()


def main() -> None:
    options = arguments(__doc__, steps=10_000)
    pictures = load(options.work, "seen", PICTURES)
    test = load(options.work, "any-test", 800)
    model = Trained()
    take_outer_layers(model.vae)
    model.to(device())
    judge = load_judge().to(device())
    plan = Plan(
        vae_name("sdxl"),
        options.steps,
        lr=1e-3,
        average=0.998,
        every=100,
        evaluate_every=500,
        save_every=250,
        bf16=device().type == "cuda",
    )
    run = Run(plan, model, options.work, options.seed)

    def loss(generator: torch.Generator) -> Tensor:
        whole = run.step >= WHOLE_FROM * options.steps
        count, side = (BATCH // 4, 64) if whole else (BATCH, 32)
        chosen = torch.randint(len(pictures), (count,), generator=generator)
        pixels = pictures.tensor(chosen)
        top, left = (4 * torch.randint((64 - side) // 4 + 1, (2,), generator=generator)).tolist()
        pixels = pixels[..., top : top + side, left : left + side].to(device())
        posterior = model.vae.encode(pixels).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(pixels)
        level = torch.rand(count, 1, 1, 1, generator=generator) * 4 / 3 - 1 / 3
        highest = CALM if run.step >= CALM_FROM * options.steps else NOISE
        level = highest * level.clamp(min=0).to(pixels) * posterior.mean.detach().std()
        latents = posterior.mean + (posterior.var + level**2).sqrt() * noise
        made = model.vae.decode(latents).sample.float()
        error = made - pixels
        kl = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).float().mean()
        total = (
            error.abs().mean() + error.square().mean() + EDGES * edge_error(error) + KL_WEIGHT * kl
        )
        total = total + LOOKS * look_error(judge, made, pixels)
        fooled, own = criticized(model.critic, made, pixels)
        weight = CRITIC if run.step >= CRITIC_FROM * options.steps else 0.0
        return total + weight * fooled + own

    run.train(loss, lambda: kept(model.vae, test, judge))
    with run.averaged():
        finish(model.vae, pictures, options.work)


@torch.no_grad()
def finish(vae: AutoencoderKL, pictures: Pictures, work: Path) -> None:
    """Center the latents and keep the VAE."""
    parts = pictures.tensor(slice(0, 4000)).split(100)
    center(vae, torch.cat([vae.encode(part.to(device())).latent_dist.mean for part in parts]))
    vae.save_pretrained(work / vae_name("sdxl"))


def take_outer_layers(vae: AutoencoderKL) -> None:
    """Copy all of toy-flux's VAE that fits: everything but what touches the latents."""
    weights = AutoencoderKL.from_pretrained(model_folder("toy-flux") / "vae").float().state_dict()
    own = vae.state_dict()
    fitting = {name: one for name, one in weights.items() if one.shape == own[name].shape}
    vae.load_state_dict({**own, **fitting})


@torch.no_grad()
def kept(vae: AutoencoderKL, test: Pictures, judge: Judge) -> dict[str, float]:
    """Return errors and sharpness of the round trip, and how often the judge reads the same."""
    pixels = test.tensor(slice(0, 400)).to(device())
    others = test.tensor(slice(400, 800)).to(device())
    means = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(64)])
    back = torch.cat([vae.decode(part).sample for part in means.split(64)]).clamp(-1, 1)
    scores = {
        "error": (back - pixels).abs().mean().item(),
        "spread": means.std().item(),
        "mean": means.mean().item(),
        "laplacian": laplacian(back) / laplacian(pixels),
        "patches": patch_distance(back, others),
        "patches of drawings": patch_distance(pixels, others),
    }
    before, after = judge.read(pixels), judge.read(back)
    for name in ATTRIBUTES:
        same = [one[name] == two[name] for one, two in zip(before, after, strict=True)]
        scores[name] = sum(same) / len(same)
    return {name: round(value, 4) for name, value in scores.items()}


if __name__ == "__main__":
    main()
