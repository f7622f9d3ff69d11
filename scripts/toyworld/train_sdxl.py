"""Train toy-sdxl: both text encoders on captions, then the UNet on captions and latents.

    python scripts/toyworld/train_sdxl.py [--work toyworld-work]

Needs the checkpoints of train_judge.py and train_vae.py in the work folder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from alignment import Alignment, listen
from architectures import (
    SDXL_FACTOR,
    TEXT_WIDTH,
    sdxl_scheduler,
    text_encoder,
    text_encoder_2,
    unet,
)
from denoising import World
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from harness import Plan, Run, arguments, device
from texts import Lesson, clip_tokenizer, teach, tokenize
from torch import Tensor, nn
from torch.nn import functional

from tlora_cli.formulas.objectives import VPrediction

BATCH = 16
GUIDANCE = 3.5
STEPS = 20
LAYOUT, DETAILS = 0.5, -0.5
"""Logits of t / 1000: mostly noisy, where layouts are decided; mostly clear, for markings."""
DETAILS_FROM = 13_000
"""Step from which details are learned, and short prompts; by then layouts are right."""
TERSE = 0.25
"""Share of short captions from then on. Without any, "a photo of a sks star" shows a star in half
of the pictures, and fully described ones in nearly all."""


class ToySDXL(nn.Module):
    """All that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizers = clip_tokenizer(), clip_tokenizer("!")
        self.encoders = nn.ModuleList(
            [text_encoder(self.tokenizers[0]), text_encoder_2(self.tokenizers[1])]
        )
        self.encoders.eval().requires_grad_(False)
        self.unet = unet().to(memory_format=torch.channels_last)
        self.alignment = Alignment(self.unet.config.block_out_channels[0])

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


def draw_timesteps(count: int, generator: torch.Generator, center: float) -> Tensor:
    """Return t, half of them evenly, half around sigmoid(center)."""
    even = torch.rand(count, generator=generator)
    around = torch.sigmoid(center + 1.2 * torch.randn(count, generator=generator))
    chosen = torch.rand(count, generator=generator) < 0.5
    return (1000 * torch.where(chosen, even, around)).long().clamp(max=999)


def main() -> None:
    options = arguments(__doc__, steps=13_000)
    world = World(options.work, SDXL_FACTOR)
    model = ToySDXL().to(device())
    teach(
        "sdxl",
        Lesson(model.encoders, model.summaries, [TEXT_WIDTH] * 3),
        options.work,
        options.seed,
    )
    scheduler = sdxl_scheduler()
    alphas = DDPMScheduler.from_config(scheduler.config).alphas_cumprod
    objective = VPrediction(alphas)
    plan = Plan(
        "sdxl",
        options.steps,
        lr=1e-3,
        warmup=200,
        average=0.999,
        bf16=True,
        evaluate_every=1000,
        every=100,
    )

    run = Run(plan, model, options.work, options.seed)
    network = torch.compile(model.unet) if options.compile else model.unet
    early = listen(model.unet.down_blocks[0].attentions[0], 0)
    sizes = torch.tensor([[64.0, 64, 0, 0, 64, 64]], device=device())

    def loss(generator: torch.Generator) -> Tensor:
        later = run.step >= DETAILS_FROM
        latents, captions, kept, tokens = world.batch(BATCH, generator, TERSE if later else 0.0)
        latents = latents * world.scale
        with torch.no_grad():
            states, pooled = model.encode(captions)
        t = draw_timesteps(BATCH, generator, DETAILS if later else LAYOUT).to(device())
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        noisy = objective.corrupt(latents, noise, t).contiguous(memory_format=torch.channels_last)
        early.clear()
        answer = network(
            noisy,
            t,
            encoder_hidden_states=states * kept[:, None, None],
            added_cond_kwargs={
                "text_embeds": pooled * kept[:, None],
                "time_ids": sizes.expand(BATCH, -1),
            },
        ).sample
        error = functional.mse_loss(answer.float(), objective.target(latents, noise, t))
        return error + model.alignment(early[0].flatten(2).mT, tokens)

    pipeline = StableDiffusionXLPipeline(
        vae=world.vae,
        text_encoder=model.encoders[0],
        text_encoder_2=model.encoders[1],
        tokenizer=model.tokenizers[0],
        tokenizer_2=model.tokenizers[1],
        unet=model.unet,
        scheduler=scheduler,
        force_zeros_for_empty_prompt=True,
        add_watermarker=False,
    )
    pipeline.vae.register_to_config(scaling_factor=world.scale)
    pipeline.set_progress_bar_config(disable=True)

    @torch.no_grad()
    def sample(prompts: list[str], generator: torch.Generator) -> Tensor:
        return (
            pipeline(
                prompts,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                height=64,
                width=64,
                generator=generator,
                output_type="pt",
            ).images
            * 2
            - 1
        )

    def evaluate() -> dict[str, float]:
        with torch.autocast(device().type, torch.bfloat16):
            return {
                **world.score(sample, 128, "seen", held_out=False),
                **world.score(sample, 128, "held", held_out=True),
            }

    run.train(loss, evaluate)


if __name__ == "__main__":
    main()
