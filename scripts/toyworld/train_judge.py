"""Train the judge on drawings of all combinations and on damaged ones, and put it into the package.

    python scripts/toyworld/train_judge.py [--work toyworld-work]

It begins with the shipped judge's trunk. Half of each batch are drawings, reconstructions, and
subjects put on other places, all of which it must read, the other half damaged pictures that it
must refuse; it is tested on kinds of damage that it never saw (`damage.py`). Needs the new VAE.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from damage import TRAINED, UNSEEN, softened
from denoising import frozen_judge
from harness import Plan, Run, arguments, device, is_done
from pictures import Pictures, load
from pools import make_pools, reconstructed, vaes
from put_together import load_put_together
from release import release, save_half, size_of, trained
from torch import Tensor
from torch.nn import functional

from tlora_cli.toyworld.factors import ATTRIBUTES
from tlora_cli.toyworld.judge import UNREADABLE, Judge
from tlora_cli.toyworld.reading import load_judge

BATCH = 64
PICTURES, POOL = 12_000, 1500
TOGETHER = 6_000
"""Pictures that are put together, as scenes for one photo are."""
TEST = 500
"""Pictures of each kind that the judge is tested on."""
CARD = """
Reads all that a picture of the built-in world is made of (`tlora_cli/toyworld/judge.py`), and
refuses pictures that nobody can read. It alone was trained on all combinations, held-out ones
included: it measures the other models. Half of what it saw were drawings, a little noisy, soft or
off in tone, as generated ones may be, reconstructions of them, and subjects that were cut out and
put on other places; the other half was damaged.

The shares below are of 2,000 other drawings of all combinations, and of 500 of them for each kind
of damage: kinds that it learned from ("known"), and kinds that it never saw.

Made by `scripts/toyworld/train_judge.py`.
"""


def refused(judge: Judge, pixels: Tensor) -> float:
    """Return the share of pictures (B, 3, 64, 64) that the judge can't read."""
    readings = judge.read(pixels.to(device()))
    return sum(one["class"] == UNREADABLE for one in readings) / len(readings)


def main() -> None:
    options = arguments(__doc__, steps=2000)
    if not is_done(options.work, "judge", options.steps):
        train(options)
    put_into_package(options.work)


def put_into_package(work: Path) -> None:
    """Put the judge of the work folder into the package, with what its training measured last."""
    log = work / "judge.jsonl"
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    last = next(line for line in reversed(lines) if "class" in line)
    judge = frozen_judge(work)
    facts = {
        "parameters": size_of(judge),
        "training": f"{PICTURES:,} drawings of all combinations, {trained(log)}",
        **{f"{name} read right": last[name] for name in ATTRIBUTES},
        **{name: value for name, value in last.items() if name.startswith("refused")},
    }
    release("judge", lambda folder: save_half(judge, folder / "model.safetensors"), CARD, facts)


def train(options: argparse.Namespace) -> None:
    """Train the judge in the work folder."""
    pictures = load(options.work, "any-judge", PICTURES)
    together = load_put_together(options.work, "judge", TOGETHER)
    test = load(options.work, "any-test", 2_000)
    test_together = load_put_together(options.work, "test", 2 * TEST)
    pools = make_pools(options.work, pictures, POOL)
    judge = Judge()
    judge.trunk.load_state_dict(load_judge().trunk.state_dict())
    judge.to(device())
    plan = Plan("judge", options.steps, lr=1e-3, average=0.99, every=100, evaluate_every=500)
    run = Run(plan, judge, options.work, options.seed)
    values = torch.from_numpy(pictures.values).long().to(device())
    values_together = torch.from_numpy(together.values).long().to(device())
    bad = torch.cat([pools["noisy"], pools["early"]])

    def unreadable(count: int, generator: torch.Generator) -> Tensor:
        kinds = list(TRAINED.values())
        parts = [bad[torch.randint(len(bad), (2 * count // 5,), generator=generator)]]
        sizes = [len(part) for part in torch.arange(count - len(parts[0])).tensor_split(len(kinds))]
        for kind, size in zip(kinds, sizes, strict=True):
            chosen = torch.randint(len(pictures), (size,), generator=generator)
            parts.append(kind(pictures.tensor(chosen), generator))
        return softened(torch.cat(parts), generator).to(device())

    def loss(generator: torch.Generator) -> Tensor:
        drawn = torch.randint(len(pictures), (BATCH // 4,), generator=generator)
        again = torch.randint(POOL, (BATCH // 8,), generator=generator)
        joined = torch.randint(len(together), (BATCH // 8,), generator=generator)
        parts = pictures.tensor(drawn), pools["readable"][again], together.tensor(joined)
        good = torch.cat(parts)
        good = softened(good, generator).to(device())
        answers = judge(torch.cat([good, unreadable(BATCH - len(good), generator)]))
        truth = torch.cat([values[torch.cat([drawn, again])], values_together[joined]])
        verdict = torch.full((BATCH,), len(ATTRIBUTES["class"]), device=device())
        verdict[: len(good)] = truth[:, 0]
        losses = [functional.cross_entropy(answers["class"], verdict, label_smoothing=0.02)]
        losses += [
            functional.cross_entropy(answers[name][: len(good)], truth[:, i], label_smoothing=0.02)
            for i, name in enumerate(ATTRIBUTES)
            if name != "class"
        ]
        return torch.stack(losses).sum()

    again = {
        name: reconstructed(vae, test.tensor(slice(0, TEST)))
        for name, vae in vaes(options.work).items()
    }

    def evaluate() -> dict[str, float]:
        found = tested(judge, test, again)
        found["refused: put together"] = refused(judge, test_together.tensor(slice(None)))
        return found

    run.train(loss, evaluate)


def tested(judge: Judge, test: Pictures, again: dict[str, Tensor]) -> dict[str, float]:
    """Return how often each attribute is read right, and how often what kind is refused."""
    pixels = test.tensor(slice(None))
    readings = judge.read(pixels.to(device()))
    found = {
        name: sum(one[name] == test.named(i)[name] for i, one in enumerate(readings)) / len(test)
        for name in ATTRIBUTES
    }
    found["refused: drawings"] = refused(judge, pixels)
    for name, back in again.items():
        found[f"refused: drawings through the VAE of {name}"] = refused(judge, back.clamp(-1, 1))
    generator = torch.Generator().manual_seed(0)
    for group, kinds in (("known", TRAINED), ("never seen", UNSEEN)):
        for name, kind in kinds.items():
            damaged = [kind(part, generator).clamp(-1, 1) for part in pixels[:TEST].split(50)]
            found[f"refused, {group}: {name}"] = refused(judge, torch.cat(damaged))
    return {name: round(value, 4) for name, value in found.items()}


if __name__ == "__main__":
    main()
