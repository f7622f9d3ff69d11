"""Train the VAE that both base models share.

    python scripts/toyworld/train_vae.py [--work toyworld-work]

Loss: absolute and squared error of the pixels, and a little KL divergence. About 8 minutes on two
cores.
"""

from __future__ import annotations

import torch
from architectures import vae as make_vae
from harness import Plan, Run, arguments, device
from pictures import load
from torch import Tensor

from tlora_cli.toyworld.factors import ATTRIBUTES
from tlora_cli.toyworld.judge import Judge

BATCH = 16
WHOLE_FROM = 0.7
"""From this share of the steps on, whole pictures; before, quarters: as many places, four times as
many pictures."""
KL_WEIGHT = 2e-4
"""Per number of the latent, against an error per number of the picture."""


def main() -> None:
    options = arguments(__doc__, steps=4000)
    pictures = load(options.work, "seen", 24_000)
    test = load(options.work, "any-test", 512)
    vae = make_vae().to(device())
    judge = Judge().to(device())
    plan = Plan(
        "vae", options.steps, lr=2e-3, average=0.995, bf16=True, evaluate_every=400, save_every=250
    )
    run = Run(plan, vae, options.work, options.seed)

    def loss(generator: torch.Generator) -> Tensor:
        whole = run.step >= WHOLE_FROM * options.steps
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

    @torch.no_grad()
    def evaluate() -> dict[str, float]:
        pixels = test.tensor(slice(None)).to(device())
        means = torch.cat([vae.encode(part).latent_dist.mean for part in pixels.split(64)])
        back = torch.cat([vae.decode(part).sample for part in means.split(64)]).clamp(-1, 1)
        scores = {
            "error": (back - pixels).abs().mean().item(),
            "spread": means.std().item(),
            "mean": means.mean().item(),
        }
        saved = options.work / "judge.pt"
        if saved.exists():
            judge.load_state_dict(torch.load(saved, weights_only=True)["model"])
            for name in ATTRIBUTES:
                scores[name] = 0.0
            before, after = judge.read(pixels), judge.read(back)
            for name in ATTRIBUTES:
                same = [one[name] == two[name] for one, two in zip(before, after, strict=True)]
                scores[name] = sum(same) / len(same)
        return {name: round(value, 4) for name, value in scores.items()}

    run.train(loss, evaluate)


if __name__ == "__main__":
    main()
