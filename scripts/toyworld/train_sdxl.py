"""Train toy-sdxl: both text encoders on captions, then the UNet on captions and latents.

    python scripts/toyworld/train_sdxl.py [--work toyworld-work] [--design deep] [--minutes M]

Needs the VAE of train_vae.py and the judge of train_judge.py in the work folder. A run stops at
--minutes of training over all starts, or at --steps, and goes on where it was.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from alignment import Alignment, listen
from architectures import DESIGNS, TEXT_WIDTH, sdxl_scheduler, text_encoder, text_encoder_2, unet
from denoising import World
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from harness import Plan, Run, arguments, device
from pictures import load
from texts import Lesson, clip_tokenizer, teach, tokenize
from torch import Tensor, nn

from tlora_cli.formulas.objectives import VPrediction

BATCH = 16
GUIDANCE = 3.5
STEPS = 20
LAYOUT, DETAILS = 0.5, -0.5
"""Logits of t / 1000 around which half of the timesteps lie, the other half lie evenly: mostly
noisy, where layouts and classes are decided; mostly clear, for markings. The two designs were tried
with 0."""
DETAILS_FROM = 22_500
"""Step from which details are learned, and the window around the subject weighs more."""
TERSE = 0.15
"""Share of short captions. Without any, "a photo of a sks star" shows a star in half of the
pictures, and fully described ones in nearly all."""
CHECKED = 256
"""Pictures of the fixed set whose loss the log tells."""


class ToySDXL(nn.Module):
    """All that is trained.

    Args:
        design: name of the UNet's.
    """

    def __init__(self, design: str) -> None:
        super().__init__()
        self.tokenizers = clip_tokenizer(), clip_tokenizer("!")
        self.encoders = nn.ModuleList(
            [text_encoder(self.tokenizers[0]), text_encoder_2(self.tokenizers[1])]
        )
        self.encoders.eval().requires_grad_(False)
        self.unet = unet(DESIGNS[design]).to(memory_format=torch.channels_last)
        self.alignment = Alignment(DESIGNS[design].widths[1])

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return what SDXL's pipeline takes: both penultimate states, and pooled text."""
        answers = [
            encoder(tokenize(tokenizer, texts), output_hidden_states=True)
            for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True)
        ]
        states = torch.cat([answer.hidden_states[-2] for answer in answers], dim=-1)
        return states, answers[1].text_embeds

    def summaries(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the texts' summaries for the first lesson."""
        states, pooled = self.encode(texts)
        one, two = states.mean(1).chunk(2, dim=-1)
        return [one, two, pooled]

    def forward(self, noisy: Tensor, t: Tensor, text: tuple[Tensor, Tensor]) -> Tensor:
        """Return v of latents (B, 4, 16, 16) at timesteps t (B,)."""
        states, pooled = text
        sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]], device=noisy.device)
        answer: Tensor = self.unet(
            noisy.contiguous(memory_format=torch.channels_last),
            t,
            encoder_hidden_states=states,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes.expand(len(noisy), -1)},
        ).sample
        return answer


def model_of(design: str) -> ToySDXL:
    """Return a model of a design, on the device."""
    return ToySDXL(design).to(device())


def design_of(work: Path, run: str) -> str:
    """Return the name of the design that a run in the work folder has."""
    return (work / f"{run}.design").read_text(encoding="utf-8").strip()


def draw_timesteps(count: int, generator: torch.Generator, center: float) -> Tensor:
    """Return t, half of them evenly, half around sigmoid(center)."""
    even = torch.rand(count, generator=generator)
    around = torch.sigmoid(center + 1.2 * torch.randn(count, generator=generator))
    chosen = torch.rand(count, generator=generator) < 0.5
    return (1000 * torch.where(chosen, even, around)).long().clamp(max=999)


def pipeline_of(model: ToySDXL, vae: Any) -> StableDiffusionXLPipeline:
    """Return the stock pipeline of a model in training."""
    pipeline = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=model.encoders[0],
        text_encoder_2=model.encoders[1],
        tokenizer=model.tokenizers[0],
        tokenizer_2=model.tokenizers[1],
        unet=model.unet,
        scheduler=sdxl_scheduler(),
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def sampler(
    pipeline: StableDiffusionXLPipeline,
) -> Callable[[list[str], torch.Generator], Tensor]:
    """Return what makes pictures (B, 3, 64, 64) in [-1, 1] of prompts."""

    @torch.no_grad()
    def sample(prompts: list[str], generator: torch.Generator) -> Tensor:
        images = pipeline(
            prompts,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=64,
            width=64,
            generator=generator,
            output_type="pt",
        ).images
        return images.cpu() * 2 - 1

    return sample


def read_options() -> argparse.Namespace:
    """Read the command line."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--design", choices=DESIGNS, default="deep")
        parser.add_argument("--name", default="sdxl", help="of the run's checkpoint and log")
        parser.add_argument("--minutes", type=float, default=float("inf"), help="of training")
        parser.add_argument("--batch", type=int, default=BATCH)
        parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
        parser.add_argument("--muon", type=int, default=0, help="steps between Muon's updates of "
                            "the transformer blocks; 0: AdamW for all")  # fmt: skip
        parser.add_argument("--scored", type=int, default=40, help="pictures of each kind that "
                            "the log's scores are of")  # fmt: skip
        parser.add_argument("--pictures", type=int, default=48_000, help="to learn from")

    return arguments(__doc__, 54_000, more)


def main() -> None:
    options = read_options()
    world = World(options.work, "sdxl", options.pictures)
    model = model_of(options.design)
    (options.work / f"{options.name}.design").write_text(options.design + "\n", encoding="utf-8")
    lesson = Lesson(model.encoders, model.summaries, [TEXT_WIDTH] * 3)
    teach("sdxl", lesson, options.work, options.seed)
    objective = VPrediction(DDPMScheduler.from_config(sdxl_scheduler().config).alphas_cumprod)
    plan = Plan(
        options.name,
        options.steps,
        lr=options.rate,
        warmup=200,
        average=0.9985,
        slow=0.9996,
        minutes=options.minutes,
        bf16=device().type == "cuda",
        orthogonal="transformer_blocks" if options.muon else None,
        orthogonal_lr=2.5,
        orthogonal_every=options.muon or 1,
        every=100,
        save_every=250,
        evaluate_every=500,
    )
    run = Run(plan, model, options.work, options.seed)
    early = listen(model.unet.down_blocks[1].attentions[0], 0)

    def loss(generator: torch.Generator) -> Tensor:
        batch = world.batch(options.batch, generator, TERSE)
        latents, kept = batch.latents, batch.kept
        with torch.no_grad():
            states, pooled = model.encode(batch.captions)
        details = run.step >= DETAILS_FROM
        t = draw_timesteps(options.batch, generator, DETAILS if details else LAYOUT).to(device())
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        early.clear()
        text = states * kept[:, None, None], pooled * kept[:, None]
        answer = model(objective.corrupt(latents, noise, t), t, text)
        errors = (answer.float() - objective.target(latents, noise, t)).square().mean(1)
        error = (errors * batch.weights() if details else errors).mean()
        return error + model.alignment(early[0].flatten(2).mT, batch.tokens)

    check = fixed_check(world, model, objective, options)
    sample = sampler(pipeline_of(model, world.vae))
    last = [run.seconds]

    def evaluate() -> dict[str, float]:
        found = {"check": check()}
        finished = run.step == options.steps or run.seconds >= 60 * options.minutes
        if options.scored and (finished or run.seconds - last[0] >= 1500):
            last[0] = run.seconds
            for held_out, composed in ((False, False), (True, False), (False, True)):
                tag = "composed" if composed else "held" if held_out else "seen"
                found |= world.score(sample, options.scored, tag, held_out, composed)
        return found

    run.train(loss, evaluate)


def fixed_check(
    world: World, model: ToySDXL, objective: VPrediction, options: argparse.Namespace
) -> Callable[[], float]:
    """Return what measures the loss of v on other pictures, the same noise each time."""
    pictures = load(options.work, "seen-test", 1000)
    pixels = pictures.tensor(slice(0, CHECKED))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        means = [world.vae.encode(p.to(device())).latent_dist.mean for p in pixels.split(64)]
    latents = (torch.cat(means) - world.shift) * world.scale
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    t = (1000 * (torch.arange(CHECKED) + 0.5) / CHECKED).long().to(device())
    captions = world.captions(pictures, range(CHECKED))

    @torch.no_grad()
    def check() -> float:
        noisy, goal = objective.corrupt(latents, noise, t), objective.target(latents, noise, t)
        errors = []
        for part in torch.arange(CHECKED).split(64):
            text = model.encode([captions[i] for i in part.tolist()])
            errors.append((model(noisy[part], t[part], text).float() - goal[part]).square().mean())
        return round(torch.stack(errors).mean().item(), 5)

    return check


if __name__ == "__main__":
    main()
