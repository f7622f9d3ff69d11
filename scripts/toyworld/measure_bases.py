"""Measure how sharp and how right a base's pictures are, old or in training, and whether they fool.

    python scripts/toyworld/measure_bases.py toy-sdxl --work toyworld-work
    python scripts/toyworld/measure_bases.py sdxl --work toyworld-work --critic

A base is a shipped one (`toy-sdxl`, `toy-flux`) or a run in the work folder (`sdxl`, `sdxl-wide`).
Sets, seeds and the critic are fixed here, before any base is trained: 200 pictures of seen prompts,
20 steps, against 200 drawings of the base's world, beside what a second set of drawings and a
reconstructed one measure. The critic is a fresh CNN of 0.2 million parameters that learns for
4,000 steps or half an hour to tell 1,500 of the base's pictures from 1,500 drawings that went
through its VAE; how often it is right is counted on 500 others of each.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from denoising import frozen_judge, load_averaged, load_vae
from harness import device
from pools import kept, reconstructed
from torch import Tensor, nn
from torch.nn import functional

from tlora_cli.foundation.bundled import is_base
from tlora_cli.toyworld import scores
from tlora_cli.toyworld.factors import draw_scene
from tlora_cli.toyworld.judge import UNREADABLE
from tlora_cli.toyworld.reading import pixels_of
from tlora_cli.toyworld.renderer import draw
from tlora_cli.toyworld.sharpness import laplacian, patch_distance
from tlora_cli.toyworld.suites import base_tasks

COUNT, SEED = 200, 77
"""Pictures of the measured set, and the seed of its prompts."""
LEARNED, TESTED = 1500, 500
"""Pictures of each side that the critic learns from and is tested on."""
CRITIC_STEPS, CRITIC_SECONDS, BATCH = 4000, 1800, 64
CRITIC_WIDTHS = (32, 64, 96)

Sampler = Callable[[list[str], torch.Generator], Tensor]


def drawings(name: str, count: int) -> Tensor:
    """Return fresh drawings of seen combinations (count, 3, 64, 64); `name` seeds them."""
    scenes = [
        draw_scene(random.Random(f"{name} {number}"), held_out=False) for number in range(count)
    ]
    return pixels_of([draw(one).image for one in scenes])


def shipped(base: str) -> tuple[Sampler, Any]:
    """Return what draws with a shipped base at its default settings, and its VAE."""
    from tlora_cli.toyworld.studio import Studio
    from tlora_cli.toyworld.suites import Task

    room = Studio(base, device())

    def sample(prompts: list[str], generator: torch.Generator) -> Tensor:
        first = int(torch.randint(2**30, (), generator=generator))
        tasks = [Task(text, {}, first + number) for number, text in enumerate(prompts)]
        return pixels_of([one.picture for one in room.draw(tasks)])

    return sample, room.pipeline.vae


def trained(work: Path, run: str) -> tuple[Sampler, Any]:
    """Return what draws with a run of train_sdxl.py in the work folder, and its VAE."""
    from train_sdxl import design_of, model_of, pipeline_of, sampler

    model = load_averaged(model_of(design_of(work, run)), work / f"{run}.pt")
    vae = load_vae(work, "sdxl")
    return sampler(pipeline_of(model, vae)), vae


def generated(sample: Sampler, count: int, seed: int) -> tuple[Tensor, list[dict[str, str]]]:
    """Return pictures of seen prompts (count, 3, 64, 64), and what was asked."""
    tasks = base_tasks(count, False, seed)
    parts = []
    for start in range(0, count, 50):
        generator = torch.Generator().manual_seed(1000 * seed + start)
        parts.append(sample([task.text for task in tasks[start : start + 50]], generator))
    return torch.cat(parts).float().clamp(-1, 1), [task.asked for task in tasks]


def measured(pixels: Tensor, asked: list[dict[str, str]], work: Path) -> dict[str, Any]:
    """Return all rows of one base's measured set."""
    one, two = drawings("sharp one", COUNT), drawings("sharp two", COUNT)
    readings = frozen_judge(work).read(pixels.to(device()))
    right = [scores.prompted_right(r, a) for r, a in zip(readings, asked, strict=True)]
    return {
        "laplacian": round(laplacian(pixels), 4),
        "laplacian, share of drawings": round(laplacian(pixels) / laplacian(one), 3),
        "patch distance": round(patch_distance(pixels, one), 4),
        "patch distance of drawings": round(patch_distance(two, one), 4),
        "TS* (strict)": str(scores.rate(right)),
        "refused": str(scores.rate([r["class"] == UNREADABLE for r in readings])),
    }


class Critic(nn.Module):
    """Says whether a picture was made by a base (positive) or drawn."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width in CRITIC_WIDTHS:
            layers += [
                nn.Conv2d(before, width, 3, stride=2, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GroupNorm(8, width),
                nn.SiLU(),
            ]
            before = width
        layers += [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(16 * before, 1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (B,)."""
        answer: Tensor = self.layers(pixels)[:, 0]
        return answer


def told_apart(made: Tensor, drawn: Tensor) -> scores.Rate:
    """Return how often a fresh critic is right on the last `TESTED` pictures of both sides."""
    torch.manual_seed(0)
    critic = Critic().to(device())
    optimizer = torch.optim.AdamW(critic.parameters(), lr=1e-3, weight_decay=0.05)
    start, generator = time.monotonic(), torch.Generator().manual_seed(0)
    truth = torch.cat([torch.ones(BATCH // 2), torch.zeros(BATCH // 2)]).to(device())
    for step in range(CRITIC_STEPS):
        if time.monotonic() - start > CRITIC_SECONDS:
            break
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * (1 - step / CRITIC_STEPS)
        which = torch.randint(LEARNED, (2, BATCH // 2), generator=generator)
        batch = torch.cat([made[which[0]], drawn[which[1]]]).to(device())
        if step % 2:
            batch = batch.flip(3)
        loss = functional.binary_cross_entropy_with_logits(critic(batch), truth)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        sides = [critic.eval()(part[LEARNED:].to(device())) > 0 for part in (made, drawn)]
    right = torch.cat([sides[0], ~sides[1]])
    return scores.rate(right.tolist())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("base", help="toy-sdxl, toy-flux, or a run in the work folder")
    parser.add_argument("--work", type=Path, default=Path("toyworld-work"), help="work folder")
    parser.add_argument("--critic", action="store_true", help="train the critic, too")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; default: all cores")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    known = is_base(options.base)
    sample, vae = shipped(options.base) if known else trained(options.work, options.base)
    pixels, asked = generated(sample, COUNT, SEED)
    folder = options.work / "measured"
    folder.mkdir(exist_ok=True)
    np.save(folder / f"{options.base}.npy", ((pixels + 1) * 127.5).round().byte().numpy())
    found = measured(pixels, asked, options.work)
    again = reconstructed(vae, drawings("sharp three", COUNT)).clamp(-1, 1)
    one = drawings("sharp one", COUNT)
    found["laplacian of the VAE, share of drawings"] = round(laplacian(again) / laplacian(one), 3)
    found["patch distance of the VAE"] = round(patch_distance(again, one), 4)
    if options.critic:
        count = LEARNED + TESTED
        made = kept(folder / f"{options.base}-many.npy", lambda: generated(sample, count, 78)[0])
        drawn = reconstructed(vae, drawings("critic", count)).clamp(-1, 1)
        found["critic right"] = str(told_apart(made, drawn))
    print(json.dumps(found, indent=2), flush=True)
    (folder / f"{options.base}.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
