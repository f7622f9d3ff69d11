"""Train toy-sdxl's VAE: four channels at 16 x 16 places, and not itself what blurs.

    python scripts/toyworld/train_vae.py [--work toyworld-work]

It begins with the outer layers of toy-flux's shipped VAE, which has eight channels at as many
places. Loss: absolute and squared errors of the pixels, absolute ones of their differences, what
the shipped judge's first two blocks see, a little KL divergence; and, once the pictures are right,
a critic of patches (`vae_losses.py`). At the end the latents are given mean 0 and spread 1, and the
VAE is kept in the folder `vae-sdxl`.
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
from windows import PIXELS, corners, cut

from tlora_cli.foundation.bundled import model_folder
from tlora_cli.toyworld.judge import Judge
from tlora_cli.toyworld.reading import load_judge
from tlora_cli.toyworld.sharpness import laplacian, patch_distance

BATCH = 16
WHOLE_FROM, CLOSE_FROM, WHOLE_AGAIN_FROM = 0.575, 0.77, 0.94
"""Shares of the steps. First quarters of pictures, as many places and four times as many pictures
as whole ones, which come then; then quarters around the subject, a sixth of the picture where most
of the detail is; and whole pictures again at the end."""
CRITIC_FROM = 0.2
"""Share of the steps from which the critic counts."""
EDGES, LOOKS, CRITIC = 2.0, 0.5, 0.03
"""Weights of the errors of edges and of features and of the critic, beside the pixels' 1."""
NOISE, CALM, CALM_FROM = 0.25, 0.1, 0.45
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
    options = arguments(__doc__, steps=13_000)
    if (options.work / vae_name("sdxl")).exists():
        print(f"there is a VAE in {options.work / vae_name('sdxl')}; it stays", flush=True)
        return
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
        share = run.step / options.steps
        close = CLOSE_FROM <= share < WHOLE_AGAIN_FROM
        whole = share >= WHOLE_FROM and not close
        count = BATCH // 4 if whole else BATCH
        chosen = torch.randint(len(pictures), (count,), generator=generator)
        pixels = pictures.tensor(chosen)
        if not whole:
            pixels = quarters(pixels, pictures, chosen if close else None, generator)
        pixels = pixels.to(device())
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


def quarters(
    pixels: Tensor, pictures: Pictures, subjects: Tensor | None, generator: torch.Generator
) -> Tensor:
    """Return windows of 32 x 32 pixels that begin at places of the latents.

    Args:
        pixels: (B, 3, 64, 64).
        pictures: where the pictures are from.
        subjects: their numbers (B,), if windows are to lie on the subjects; or anywhere.
        generator: the source.
    """
    positions = None
    if subjects is not None:
        positions = [pictures.named(number)["position"] for number in subjects.tolist()]
    return cut(pixels, corners(len(pixels), positions, generator), PIXELS)


def take_outer_layers(vae: AutoencoderKL) -> None:
    """Copy all of toy-flux's VAE that fits: everything but what touches the latents."""
    weights = AutoencoderKL.from_pretrained(model_folder("toy-flux") / "vae").float().state_dict()
    own = vae.state_dict()
    fitting = {
        name: one for name, one in weights.items() if name in own and one.shape == own[name].shape
    }
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
    for name in before[0]:
        same = [one[name] == two[name] for one, two in zip(before, after, strict=True)]
        scores[name] = sum(same) / len(same)
    return {name: round(value, 4) for name, value in scores.items()}


if __name__ == "__main__":
    main()
