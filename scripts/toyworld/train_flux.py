"""Train toy-flux: transformer and both text encoders, then distil guidance into it.

    python scripts/toyworld/train_flux.py [--work toyworld-work]

First rectified flow on captions and latents. Then, as FLUX.1-dev was made from its larger teacher,
the frozen model with classifier-free guidance teaches a copy of itself that takes the guidance
as an input, so one call does the work of two. There the student also learns that it does not
matter how much padding follows a text: the stock pipeline fills it up to 512 tokens, of which a
caption has thirty. Needs the judge of train_judge.py in the work folder; the VAE is the shipped
one. A run stops at --minutes of training over all starts, or at --steps, and goes on where it was.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from alignment import Alignment, listen
from architectures import (
    TEXT_LENGTH,
    TEXT_WIDTH,
    flux_scheduler,
    t5_encoder,
    text_encoder,
    transformer,
)
from denoising import Batch, World
from diffusers import FluxPipeline, FluxTransformer2DModel
from harness import Plan, Run, arguments, device
from texts import Lesson, clip_tokenizer, t5_tokenizer, teach, tokenize
from torch import Tensor, nn
from torch.nn import functional

from tlora_cli.families.patches import image_ids, pack

BATCH = 16
SCORED = 64
"""Pictures of each kind that the log's scores are of."""
GUIDANCE = 3.5
"""Guidance that is asked for where no other is."""
TAUGHT = (1.0, 7.0)
"""Range of guidance that is distilled."""
STEPS = 20
LONG = (64, 128, 256, 512)
"""Tokens of a text with more padding, in a part of the student's batches."""
LONG_SHARE = 0.25
"""That part: such a batch takes three times as long."""


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

    def encode(self, texts: Sequence[str], length: int = TEXT_LENGTH) -> tuple[Tensor, Tensor]:
        """Return what FLUX's pipeline takes: T5's states of `length` tokens, CLIP's pooled text."""
        clip = self.encoders[0](tokenize(self.tokenizers[0], texts))
        t5 = self.encoders[1](tokenize(self.tokenizers[1], texts, length))
        return t5.last_hidden_state, clip.pooler_output

    def summaries(self, texts: Sequence[str], length: int) -> list[Tensor]:
        """Return the texts' summaries for the first lesson; padding is left out of T5's."""
        states, pooled = self.encode(texts, length)
        return [states[:, :TEXT_LENGTH].mean(1), pooled]

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


def pipeline_of(model: ToyFlux, vae: Any) -> FluxPipeline:
    """Return the stock pipeline of a model in training."""
    pipeline = FluxPipeline(
        scheduler=flux_scheduler(),
        vae=vae,
        text_encoder=model.encoders[0],
        tokenizer=model.tokenizers[0],
        text_encoder_2=model.encoders[1],
        tokenizer_2=model.tokenizers[1],
        transformer=model.transformer,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def read_options() -> argparse.Namespace:
    """Read the command line."""

    def more(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--minutes", type=float, default=float("inf"), help="of the teacher")
        parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
        parser.add_argument("--batch", type=int, default=BATCH)
        parser.add_argument("--distilled", type=int, default=4000, help="steps of the student")
        parser.add_argument("--pictures", type=int, default=48_000, help="to learn from")
        parser.add_argument("--start", type=Path, help="folder of a base whose transformer goes "
                            "on, such as the toy-flux of an earlier world")  # fmt: skip

    return arguments(__doc__, 25_000, more)


def begun(base: Path) -> dict[str, Tensor]:
    """Return the weights of a base's transformer in float32.

    The text encoders are trained anew in any case: a world has its own words.
    """
    whole = FluxTransformer2DModel.from_pretrained(base / "transformer", torch_dtype=torch.float32)
    return dict(whole.state_dict())


def main() -> None:
    options = read_options()
    world = World(options.work, "flux", options.pictures)
    model = ToyFlux().to(device())
    if options.compile:
        model.compile_network()
    if options.start:
        model.transformer.load_state_dict(begun(options.start))
    lesson = Lesson(model.encoders, model.summaries, [2 * TEXT_WIDTH, TEXT_WIDTH], LONG)
    teach("flux", lesson, options.work, options.seed)
    pipeline = pipeline_of(model, world.vae)

    def noised(
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor, Tensor, Batch]:
        """Return t, noisy latents, velocity, and what they are of."""
        batch = world.batch(options.batch, generator)
        clean = pack(batch.latents)
        noise = torch.randn(clean.shape, generator=generator).to(clean)
        # Half evenly, half mostly in the middle (Esser et al. 2024, eq. 19).
        t = torch.rand(options.batch, generator=generator)
        middle = torch.sigmoid(torch.randn(options.batch, generator=generator))
        t = torch.where(torch.rand(options.batch, generator=generator) < 0.5, t, middle).to(clean)
        at = t[:, None, None]
        return t, (1 - at) * clean + at * noise, noise - clean, batch

    early = listen(model.transformer.transformer_blocks[-1], 1)  # text first, then the picture

    def first_loss(generator: torch.Generator) -> Tensor:
        t, noisy, velocity, batch = noised(generator)
        pairs = zip(batch.captions, batch.kept, strict=True)
        texts = [text if keep else "" for text, keep in pairs]
        with torch.no_grad():
            text = model.encode(texts)
        early.clear()
        answer = model(noisy, t, text, torch.ones_like(t))
        errors = (answer.float() - velocity).square().mean(2)
        weights = functional.avg_pool2d(batch.weights(), 2).flatten(1)
        error = (errors * weights).mean()
        return error + model.alignment(early[0], batch.tokens)

    def sampler(
        length: int = TEXT_LENGTH, **settings: float
    ) -> Callable[[list[str], torch.Generator], Tensor]:
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
                    max_sequence_length=length,
                    generator=generator,
                    output_type="pt",
                    **negative,
                    **settings,
                ).images.cpu()
                * 2
                - 1
            )

        return sample

    last = [0.0]

    def evaluate(run: Run, **settings: float) -> dict[str, float]:
        done = run.step == run.plan.steps or run.seconds >= 60 * run.plan.minutes
        if not done and run.seconds - last[0] < 1500:
            return {"scored": 0}
        last[0] = run.seconds
        found = {}
        for held_out, composed in ((False, False), (True, False), (False, True)):
            tag = "composed" if composed else "held" if held_out else "seen"
            found |= world.score(sampler(**settings), SCORED, tag, held_out, composed)
        return found

    first = Plan(
        "flux-teacher",
        options.steps,
        lr=options.rate,
        warmup=300,
        average=0.999,
        slow=0.9997,
        minutes=options.minutes,
        bf16=device().type == "cuda",
        evaluate_every=500,
        orthogonal="transformer_blocks",
        orthogonal_lr=2.5,
    )
    run = Run(first, model, options.work, options.seed)
    run.train(first_loss, lambda: evaluate(run, guidance_scale=1.0, true_cfg_scale=3.0))
    if run.step < options.steps:
        return
    with run.averaged():
        weights = copy.deepcopy(model.state_dict())
    student, teacher = model, ToyFlux().to(device())
    for one in (student, teacher):
        one.load_state_dict(weights)
    teacher.eval().requires_grad_(False)
    if options.compile:
        teacher.compile_network()

    def second_loss(generator: torch.Generator) -> Tensor:
        t, noisy, _, batch = noised(generator)
        captions = batch.captions
        early.clear()
        low, high = TAUGHT
        strength = low + (high - low) * torch.rand(options.batch, generator=generator).to(t)
        with torch.no_grad():
            text = teacher.encode(captions)
            padded = text
            if torch.rand((), generator=generator) < LONG_SHARE:
                length = LONG[int(torch.randint(len(LONG), (), generator=generator))]
                padded = teacher.encode(captions, length)
            none = tuple(
                part.expand(options.batch, *part.shape[1:]) for part in teacher.encode([""])
            )
            ones = torch.ones_like(t)
            with_text, without = teacher(noisy, t, text, ones), teacher(noisy, t, none, ones)
            goal = without + strength[:, None, None] * (with_text - without)
        return functional.mse_loss(student(noisy, t, padded, strength).float(), goal.float())

    second = Plan(
        "flux",
        options.distilled,
        lr=5e-4,
        average=0.995,
        bf16=device().type == "cuda",
        evaluate_every=500,
        orthogonal="transformer_blocks",
    )
    last[0] = 0.0
    run = Run(second, student, options.work, options.seed)
    run.train(second_loss, lambda: evaluate(run, guidance_scale=GUIDANCE))
    stock = world.score(sampler(512, guidance_scale=GUIDANCE), SCORED, "padded", held_out=False)
    run.log(stock)


if __name__ == "__main__":
    main()
