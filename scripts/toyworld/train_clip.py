"""Train toy-clip, a CLIPModel that compares drawings with texts, on seen combinations.

    python scripts/toyworld/train_clip.py [--work toyworld-work]

About 7 minutes on one core. The loss is CLIP's; beside it, linear heads tell the five factors from
the shared space, for pictures and texts alike, which speeds the start up; they are thrown away.
"""

from __future__ import annotations

import math
import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from architectures import TEXT_LENGTH
from damage import softened
from harness import Plan, Run, arguments, device
from pictures import Pictures, load
from release import add_figures, release, size_of, trained
from texts import clip_tokenizer, tokenize
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

from tlora_cli.toyworld.captions import caption
from tlora_cli.toyworld.factors import FACTORS, SIZE

BATCH = 128
PICTURES = 24_000
COMPLETE_SHARE = 0.8
"""Share of training captions that name every factor."""
WIDTH = 64
"""Width of the space that pictures and texts share."""
LARGEST_SCALE = math.log(100)
RECOLORED = 32
"""Pictures of each batch with their color channels exchanged. Only heads learn from them, those of
the `SHAPES`: which colors and backgrounds a class had must not help to tell it."""
EXCHANGES = torch.tensor([(0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
SHAPES = ("class", "position", "accessory")
CHOICES = 100
DRAWS = 10
CARD = """
A CLIPModel that compares drawings with texts: a ViT of three layers, a text encoder of two, and a
shared space of 64 numbers. It learned from drawings of seen combinations (no held-out pair;
`tlora_cli/toyworld/factors.py`) and their captions. Load it with `CLIPModel` and `CLIPProcessor`.

Top-1 is how often the right one of 100 is the nearest, over 10 draws of 100 drawings with different
factors. Mind that it tells classes badly when nothing else differs: on held-out drawings, the right
class beats the seven others in about six of ten cases.

Made by `scripts/toyworld/train_clip.py`.
"""


class ToyClip(nn.Module):
    """The model, its tokenizer, and heads that name the factors."""

    def __init__(self) -> None:
        super().__init__()
        self.tokenizer = clip_tokenizer()
        self.clip = CLIPModel(_config(self.tokenizer))
        self.clip.set_attn_implementation("eager")  # faster on CPUs than the fused kernel
        self.heads = nn.ModuleList(nn.Linear(WIDTH, len(known)) for known in FACTORS.values())

    def loss(self, pixels: Tensor, texts: list[str], values: Tensor) -> Tensor:
        """Return CLIP's loss plus the heads' cross entropy.

        Args:
            pixels: (B, 3, 64, 64) in [-1, 1]; the first `RECOLORED` have wrong colors.
            texts: a caption of each.
            values: (B, factors) the number of each value.
        """
        found = self.clip(input_ids=tokenize(self.tokenizer, texts), pixel_values=pixels)
        pictures, words = found.image_embeds.float(), found.text_embeds.float()
        scale = self.clip.logit_scale.clamp(max=LARGEST_SCALE).exp()
        logits = scale * pictures[RECOLORED:] @ words[RECOLORED:].T
        # Pictures of the same factors share the right answer.
        same = (values[RECOLORED:, None] == values[None, RECOLORED:]).all(2).float()
        same = same / same.sum(1, keepdim=True)
        total = functional.cross_entropy(logits, same) + functional.cross_entropy(logits.T, same)
        for number, (name, head) in enumerate(zip(FACTORS, self.heads, strict=True)):
            first = 0 if name in SHAPES else RECOLORED
            for embeds in (pictures[first:], words[first:]):
                answers = head(embeds * math.sqrt(WIDTH))
                total = total + functional.cross_entropy(answers, values[first:, number])
        return total / 2


def _config(tokenizer: CLIPTokenizer) -> CLIPConfig:
    return CLIPConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": TEXT_LENGTH,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIZE,
            "patch_size": 8,
        },
        projection_dim=WIDTH,
    )


def moved(
    pixels: Tensor,
    generator: torch.Generator,
    size: int,
    zoom: tuple[float, float],
    angle: float,
    shift: tuple[float, float],
    *,
    mirror: bool = False,
) -> Tensor:
    """Return a window of `size` pixels, random for each picture.

    Args:
        pixels: (B, C, 64, 64).
        generator: the source.
        size: side of the window; its scale is the picture's.
        zoom: lowest and highest enlargement.
        angle: largest turn, in radians.
        shift: largest offset right and down; 1 is half the picture.
        mirror: mirror half of the windows.
    """
    count, channels = pixels.shape[:2]

    def uniform(low: float, high: float) -> Tensor:
        return low + torch.rand(count, generator=generator) * (high - low)

    turn = uniform(-angle, angle)
    side = size / SIZE / uniform(*zoom)
    cos, sin = side * turn.cos(), side * turn.sin()
    sign = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0) if mirror else torch.ones(count)
    across, down = uniform(-shift[0], shift[0]), uniform(-shift[1], shift[1])
    rows = [torch.stack([cos * sign, -sin, across], 1), torch.stack([sin * sign, cos, down], 1)]
    grid = functional.affine_grid(
        torch.stack(rows, 1).to(pixels), [count, channels, size, size], align_corners=False
    )
    return functional.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


@torch.no_grad()
def retrieval(model: CLIPModel, tokenizer: CLIPTokenizer, test: Pictures) -> dict[str, float]:
    """Return how often a picture's own caption is the nearest of 100 different ones, and back."""
    right = {"picture to caption": 0, "caption to picture": 0}
    truth = torch.arange(CHOICES)
    for draw in range(DRAWS):
        rng = random.Random(draw)
        order = rng.sample(range(len(test)), len(test))
        different = {tuple(test.values[i, : len(FACTORS)].tolist()): i for i in order}
        chosen = list(different.values())[:CHOICES]
        texts = [caption(test.named(i), rng, complete=True) for i in chosen]
        logits = model(
            input_ids=tokenize(tokenizer, texts), pixel_values=test.tensor(chosen).to(device())
        ).logits_per_image.cpu()
        right["picture to caption"] += int((logits.argmax(1) == truth).sum())
        right["caption to picture"] += int((logits.argmax(0) == truth).sum())
    return {name: count / (DRAWS * CHOICES) for name, count in right.items()}


@torch.no_grad()
def by_factor(model: CLIPModel, tokenizer: CLIPTokenizer, test: Pictures) -> dict[str, float]:
    """Return how often the right caption beats all that differ from it in one factor only."""
    rng = random.Random(0)
    pictures = model.get_image_features(test.tensor(slice(None)).to(device())).pooler_output
    shares = {}
    for name, known in FACTORS.items():
        right = 0
        for i, picture in enumerate(pictures):
            values, wording = test.named(i), rng.getrandbits(32)
            texts = [
                caption({**values, name: value}, random.Random(wording), complete=True)
                for value in known
            ]
            found = model.get_text_features(tokenize(tokenizer, texts)).pooler_output
            similarity = functional.cosine_similarity(picture[None], found)
            right += known[int(similarity.argmax())] == values[name]
        shares[name] = right / len(pictures)
    return shares


def main() -> None:
    options = arguments(__doc__, steps=1000)
    pictures = load(options.work, "seen", PICTURES)
    tests = {kind: load(options.work, f"{kind}-test", 600) for kind in ("held", "seen")}
    model = ToyClip().to(device())
    plan = Plan(
        "clip", options.steps, lr=1e-3, average=0.995, evaluate_every=250, save_every=250, bf16=True
    )
    run = Run(plan, model, options.work, options.seed)
    values = torch.from_numpy(pictures.values[:, : len(FACTORS)]).long().to(device())

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pictures), (BATCH,), generator=generator)
        rng = random.Random(int(torch.randint(2**31, (1,), generator=generator)))
        texts = [
            caption(pictures.named(i), rng, complete=rng.random() < COMPLETE_SHARE)
            for i in chosen.tolist()
        ]
        pixels = pictures.tensor(chosen).to(device())
        pixels = moved(pixels, generator, SIZE, (0.9, 1.12), 0.12, (0.06, 0.12))
        orders = EXCHANGES[torch.randint(len(EXCHANGES), (RECOLORED,), generator=generator)]
        pixels[:RECOLORED] = pixels[torch.arange(RECOLORED)[:, None], orders]
        pixels = softened(pixels, generator)
        return model.loss(pixels, texts, values[chosen])

    def evaluate() -> dict[str, float]:
        return retrieval(model.clip, model.tokenizer, tests["held"])

    def write(folder: Path) -> None:
        look = CLIPImageProcessorPil(
            size={"height": SIZE, "width": SIZE},
            do_center_crop=False,
            image_mean=[0.5] * 3,
            image_std=[0.5] * 3,
        )
        CLIPProcessor(look, model.tokenizer).save_pretrained(folder)
        deepcopy(model.clip).half().save_pretrained(folder)

    def measure(folder: Path) -> dict[str, Any]:
        saved = CLIPModel.from_pretrained(folder, dtype=torch.float32).to(device()).eval()
        tokenizer = CLIPTokenizer.from_pretrained(folder)
        figures: dict[str, Any] = {"choices": CHOICES, "draws": DRAWS}
        for kind, name in (("held", "held-out"), ("seen", "seen")):
            for way, share in retrieval(saved, tokenizer, tests[kind]).items():
                figures[f"{name}: {way}, top-1"] = share
        figures["pictures by factor"] = len(tests["held"])
        for factor, share in by_factor(saved, tokenizer, tests["held"]).items():
            figures[f"held-out: {factor} told"] = share
        return figures

    run.train(loss, evaluate)
    with run.averaged():
        facts = {
            "parameters": size_of(model.clip),
            "training": f"{len(pictures)} drawings, {trained(run.log_file)} on one core",
        }
        folder = release("toy-clip", write, CARD, facts)
    add_figures(folder, measure(folder))


if __name__ == "__main__":
    main()
