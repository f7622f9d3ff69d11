"""Train toy-flux: transformer and both text encoders, then distil guidance into it.

    python scripts/toyworld/train_flux.py [--work toyworld-work]

First rectified flow on captions and latents. Then, as FLUX.1-dev was made from its larger teacher,
the frozen model with classifier-free guidance teaches a copy of itself that takes the guidance
as an input, so one call does the work of two. Needs the checkpoints of train_judge.py and
train_vae.py in the work folder. An hour on one core with --compile, which needs a C++ compiler;
two without.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from alignment import Alignment, listen
from architectures import (
    FLUX_FACTOR,
    TEXT_WIDTH,
    flux_scheduler,
    t5_encoder,
    text_encoder,
    transformer,
)
from denoising import World
from diffusers import FluxPipeline
from harness import Plan, Run, arguments, device
from texts import Lesson, clip_tokenizer, t5_tokenizer, teach, tokenize
from torch import Tensor, nn
from torch.nn import functional

from tlora_cli.families.patches import image_ids, pack

BATCH = 16
GUIDANCE = 3.5
"""Guidance that is asked for where no other is."""
TAUGHT = (1.0, 7.0)
"""Range of guidance that is distilled."""
STEPS = 20


class ToyFlux(nn.Module):
    """All that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizers = clip_tokenizer(), t5_tokenizer()
        self.encoders = nn.ModuleList(
            [text_encoder(self.tokenizers[0]), t5_encoder(self.tokenizers[1])]
        )
        self.encoders.eval().requires_grad_(False)
        self.transformer = transformer()
        self.alignment = Alignment(self.transformer.inner_dim)
        self.network: Callable[..., Any] = self.transformer.forward

    def compile_network(self) -> None:
        """Compile what trains; the pipeline keeps the transformer as it is."""
        self.network = torch.compile(self.transformer.forward)

    def encode(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return what FLUX's pipeline takes: T5's states and CLIP's pooled text."""
        clip, t5 = (
            encoder(tokenize(tokenizer, texts))
            for tokenizer, encoder in zip(self.tokenizers, self.encoders, strict=True)
        )
        return t5.last_hidden_state, clip.pooler_output

    def summaries(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the texts' summaries for the first lesson."""
        states, pooled = self.encode(texts)
        return [states.mean(1), pooled]

    def forward(
        self, noisy: Tensor, t: Tensor, text: tuple[Tensor, Tensor], guidance: Tensor
    ) -> Tensor:
        """Return the velocity of packed latents (B, 64, 16) at t in [0, 1]."""
        states, pooled = text
        like = noisy.new_zeros(())
        return self.network(
            hidden_states=noisy,
            encoder_hidden_states=states,
            pooled_projections=pooled,
            timestep=t,
            img_ids=image_ids(16, 16, like),
            txt_ids=torch.zeros(states.shape[1], 3, device=noisy.device),
            guidance=guidance,
            return_dict=False,
        )[0]


def main() -> None:
    options = arguments(__doc__, steps=21_000)
    world = World(options.work, FLUX_FACTOR)
    model = ToyFlux().to(device())
    if options.compile:
        model.compile_network()
    lesson = Lesson(model.encoders, model.summaries, [2 * TEXT_WIDTH, TEXT_WIDTH])
    teach("flux", lesson, options.work, options.seed)
    pipeline = FluxPipeline(
        scheduler=flux_scheduler(),
        vae=world.vae,
        text_encoder=model.encoders[0],
        tokenizer=model.tokenizers[0],
        text_encoder_2=model.encoders[1],
        tokenizer_2=model.tokenizers[1],
        transformer=model.transformer,
    )
    pipeline.vae.register_to_config(scaling_factor=world.scale, shift_factor=world.shift)
    pipeline.set_progress_bar_config(disable=True)

    def noised(
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor, list[str], Tensor, Tensor]:
        """Return t, noisy latents, velocity, captions, which to keep, and patch tokens."""
        latents, captions, kept, tokens = world.batch(BATCH, generator)
        clean = pack((latents - world.shift) * world.scale)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        # Half evenly, half mostly in the middle (Esser et al. 2024, eq. 19).
        t = torch.rand(BATCH, generator=generator)
        middle = torch.sigmoid(torch.randn(BATCH, generator=generator))
        t = torch.where(torch.rand(BATCH, generator=generator) < 0.5, t, middle).to(clean)
        at = t[:, None, None]
        return t, (1 - at) * clean + at * noise, noise - clean, captions, kept, tokens

    early = listen(model.transformer.transformer_blocks[-1], 1)  # text first, then the picture

    def first_loss(generator: torch.Generator) -> Tensor:
        t, noisy, velocity, captions, kept, tokens = noised(generator)
        texts = [text if keep else "" for text, keep in zip(captions, kept, strict=True)]
        with torch.no_grad():
            text = model.encode(texts)
        early.clear()
        answer = model(noisy, t, text, torch.ones_like(t))
        error = functional.mse_loss(answer.float(), velocity)
        return error + model.alignment(early[0], tokens)

    def sampler(**settings: float) -> Callable[[list[str], torch.Generator], Tensor]:
        @torch.no_grad()
        def sample(prompts: list[str], generator: torch.Generator) -> Tensor:
            negative = (
                {"negative_prompt": [""] * len(prompts)} if "true_cfg_scale" in settings else {}
            )
            return (
                pipeline(
                    prompts,
                    num_inference_steps=STEPS,
                    height=64,
                    width=64,
                    max_sequence_length=pipeline.tokenizer_2.model_max_length,
                    generator=generator,
                    output_type="pt",
                    **negative,
                    **settings,
                ).images
                * 2
                - 1
            )

        return sample

    def evaluate(**settings: float) -> dict[str, float]:
        with torch.autocast(device().type, torch.bfloat16):
            return {
                **world.score(sampler(**settings), 128, "seen", held_out=False),
                **world.score(sampler(**settings), 128, "held", held_out=True),
            }

    first = Plan(
        "flux-teacher",
        options.steps,
        lr=1e-3,
        warmup=300,
        average=0.999,
        bf16=True,
        evaluate_every=2000,
        orthogonal="transformer_blocks",
        orthogonal_lr=2.5,
    )
    run = Run(first, model, options.work, options.seed)
    run.train(first_loss, lambda: evaluate(guidance_scale=1.0, true_cfg_scale=3.0))
    with run.averaged():
        weights = copy.deepcopy(model.state_dict())
    student, teacher = model, ToyFlux().to(device())
    for one in (student, teacher):
        one.load_state_dict(weights)
    teacher.eval().requires_grad_(False)
    if options.compile:
        teacher.compile_network()

    def second_loss(generator: torch.Generator) -> Tensor:
        t, noisy, _, captions, _, _ = noised(generator)
        early.clear()
        low, high = TAUGHT
        strength = low + (high - low) * torch.rand(BATCH, generator=generator).to(t)
        with torch.no_grad():
            text = teacher.encode(captions)
            none = tuple(part.expand(BATCH, *part.shape[1:]) for part in teacher.encode([""]))
            ones = torch.ones_like(t)
            with_text, without = teacher(noisy, t, text, ones), teacher(noisy, t, none, ones)
            goal = without + strength[:, None, None] * (with_text - without)
        return functional.mse_loss(student(noisy, t, text, strength).float(), goal.float())

    second = Plan(
        "flux",
        max(1, options.steps // 12),
        lr=5e-4,
        average=0.995,
        bf16=True,
        evaluate_every=500,
        orthogonal="transformer_blocks",
    )
    run = Run(second, student, options.work, options.seed)
    run.train(second_loss, lambda: evaluate(guidance_scale=GUIDANCE))


if __name__ == "__main__":
    main()
