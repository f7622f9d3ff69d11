"""Train the judge on drawings of all combinations and write it.

    python scripts/toyworld/train_judge.py [--work toyworld-work]

About 4 minutes on two cores.
"""

from __future__ import annotations

import torch
from harness import Plan, Run, arguments, device
from pictures import load
from release import release, save_half, size_of, trained
from torch import Tensor
from torch.nn import functional

from tlora_cli.toyworld.factors import ATTRIBUTES
from tlora_cli.toyworld.judge import Judge

BATCH = 64
CARD = """
Reads class, color, background, position, accessory, marking and feature of a picture
(`tlora_cli/toyworld/judge.py`). It alone was trained on all combinations, held-out ones included:
it measures the other models. Its training pictures were made a little noisy, soft or off in tone,
as generated ones may be. The shares below are of 2,000 other drawings of all combinations.
"""


def damaged(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Return pictures as a generator might give them: a little noisy, soft, or off in tone."""
    count = len(pixels)

    def uniform(low: float, high: float) -> Tensor:
        drawn = torch.rand(count, 1, 1, 1, generator=generator).to(pixels)
        return low + drawn * (high - low)

    soft = functional.avg_pool2d(functional.pad(pixels, (1, 1, 1, 1), mode="replicate"), 3, 1)
    pixels = torch.lerp(pixels, soft, uniform(0, 0.7))
    noise = torch.randn(pixels.shape, generator=generator).to(pixels)
    pixels = pixels * uniform(0.92, 1.06) + uniform(-0.05, 0.05) + noise * uniform(0, 0.12)
    return pixels.clamp(-1, 1)


def main() -> None:
    options = arguments(__doc__, steps=2600)
    pictures = load(options.work, "any-judge", 12_000)
    test = load(options.work, "any-test", 2_000)
    judge = Judge().to(device())
    plan = Plan("judge", options.steps, lr=2e-3, average=0.995, every=100, evaluate_every=500)
    run = Run(plan, judge, options.work, options.seed)
    values = torch.from_numpy(pictures.values).long().to(device())

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (BATCH,), generator=generator)
        answers = judge(damaged(pictures.tensor(chosen).to(device()), generator))
        truth = values[chosen]
        losses = [
            functional.cross_entropy(answers[name], truth[:, number], label_smoothing=0.02)
            for number, name in enumerate(ATTRIBUTES)
        ]
        return torch.stack(losses).sum()

    def evaluate() -> dict[str, float]:
        readings = judge.read(test.tensor(slice(None)).to(device()))
        return {
            name: sum(one[name] == test.named(i)[name] for i, one in enumerate(readings))
            / len(test)
            for name in ATTRIBUTES
        }

    run.train(loss, evaluate)
    with run.averaged():
        facts = {
            "parameters": size_of(judge),
            "training": f"12,000 drawings of all combinations, {trained(run.log_file)}",
            **{f"{name} read right": value for name, value in evaluate().items()},
        }
        release("judge", lambda folder: save_half(judge, folder / "model.safetensors"), CARD, facts)


if __name__ == "__main__":
    main()
