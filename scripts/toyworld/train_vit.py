"""Train toy-vit, a DINO-like ViT that compares drawings with drawings, without labels.

    python scripts/toyworld/train_vit.py [--work toyworld-work]

About 9 minutes on one core. Two views of a picture should look alike to a student and to its slow
average, the teacher, which is what is kept. The first view is whole, the others are whole or local
(multi-crop, as DINO); they are told apart from views of other pictures (MoCo's loss), which in so
few steps is more reliable than DINO's centering. Views are turned, mirrored, shifted and scaled,
and their subject is often set before another background or on white: subjects are cut out with
their masks. No caption and no attribute is read.
"""

from __future__ import annotations

import random
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from damage import softened
from empty_places import EmptyPlaces
from harness import Plan, Run, arguments, device
from pictures import load, save_array, scene
from release import add_figures, release, size_of, trained
from torch import Tensor, nn
from torch.nn import functional
from train_clip import moved
from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

from tlora_cli.toyworld.factors import ATTRIBUTES, DETAILS, FACTORS, PRIVATE, SIZE, Pose, Scene
from tlora_cli.toyworld.renderer import draw

BATCH = 128
PICTURES = 6_000
WIDTH, HEAD_WIDTH = 96, 64
LOCAL_VIEWS, LOCAL_SIZE = 2, 32
MOMENTUM = 0.99
"""Momentum of the teacher."""
QUEUE = 1024
"""Other pictures to tell a picture from, beside those of its batch."""
TEMPERATURE = 0.15
CONCEPTS, EACH = 50, 4
NEGATIVES = {
    "other color, marking, feature": ("color", "marking", "feature"),
    "same color, other marking and feature": ("marking", "feature"),
}
"""Pictures of the same class that a concept's should come before -> what is different."""
CARD = f"""
A ViTModel that compares drawings with drawings, trained without labels in the way of DINO and MoCo:
four layers, {WIDTH} wide, patches of 8. Use its CLS token. It learned from drawings of seen
combinations and their subject masks; no caption and no attribute was read.

AUC is how often a picture of a made-up concept is nearer to another one of the same concept than to
one of the same class, all on different backgrounds. "Full" pictures keep their background, "masked"
ones have the subject on white.

Made by `scripts/toyworld/train_vit.py`.
"""


class Distillation(nn.Module):
    """A student, its slow average as the teacher, and the teacher's last summaries."""

    def __init__(self) -> None:
        super().__init__()
        config = ViTConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=4,
            num_attention_heads=3,
            image_size=SIZE,
            patch_size=8,
        )
        vit = ViTModel(config, add_pooling_layer=False)
        vit.set_attn_implementation("eager")  # faster on CPUs than the fused kernel
        head = nn.Sequential(nn.Linear(WIDTH, 256), nn.GELU(), nn.Linear(256, HEAD_WIDTH))
        self.student = nn.ModuleDict({"vit": vit, "head": head})
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self.register_buffer("queue", functional.normalize(torch.randn(QUEUE, HEAD_WIDTH)))

    def loss(self, whole: Tensor, views: list[Tensor]) -> Tensor:
        """Return the loss of the student's views against the teacher's."""
        with torch.no_grad():
            slow = list(self.teacher.parameters())
            torch._foreach_lerp_(slow, list(self.student.parameters()), 1 - MOMENTUM)
            keys = torch.cat([_summary(self.teacher, whole), self.queue])
            self.queue.copy_(keys[:QUEUE])
        truth = torch.arange(len(whole), device=whole.device)
        losses = [
            functional.cross_entropy(_summary(self.student, view) @ keys.T / TEMPERATURE, truth)
            for view in views
        ]
        return torch.stack(losses).mean()


def _summary(model: nn.ModuleDict, pixels: Tensor) -> Tensor:
    states = model["vit"](pixels, interpolate_pos_encoding=True).last_hidden_state
    return functional.normalize(model["head"](states[:, 0]).float())


class Views:
    """Makes views of pictures; their masks and plain backgrounds are drawn once and kept.

    Args:
        work: the work folder.
    """

    def __init__(self, work: Path) -> None:
        self.pixels = load(work, "seen", PICTURES).tensor(slice(None))
        self.masks = _masks(work)
        self.empty = EmptyPlaces(work).tensor(slice(None))

    def make(self, chosen: Tensor, size: int, generator: torch.Generator) -> Tensor:
        """Return (B, 3, size, size) views of the chosen pictures."""
        count = len(chosen)
        stacked = torch.cat([self.pixels[chosen], self.masks[chosen]], 1).to(device())
        local = size < SIZE
        shift = 0.4 if local else 0.2
        stacked = moved(stacked, generator, size, (0.85, 1.2), 0.2, (shift, shift), mirror=True)
        pixels, masks = stacked.split((3, 1), 1)
        other = torch.randint(len(self.empty), (count,), generator=generator)
        place = self.empty[other].to(pixels)
        place = moved(place, generator, size, (1.0, 1.3), 0.0, (0.1, 0.1), mirror=True)
        kind = torch.rand(count, 1, 1, 1, generator=generator).to(pixels)
        place = torch.where(kind < 0.4, 1.0, place)  # on white, or before another background,
        masks = torch.where(kind > 0.75, 1.0, masks)  # or as it is
        return softened(torch.lerp(place, pixels, masks), generator)


def _masks(work: Path) -> Tensor:
    """Return the subjects' masks of all pictures, (N, 1, 64, 64) in [0, 1]."""
    file = work / f"masks-{PICTURES}.npy"
    if not file.exists():
        print(f"drawing {PICTURES} masks", flush=True)
        drawn = [np.asarray(draw(scene("seen", number)).mask) for number in range(PICTURES)]
        save_array(file, np.stack(drawn))
    return torch.from_numpy(np.load(file))[:, None].float() / 255


class Lineup:
    """Concepts, each with pictures of its own and of others of its class.

    The four pictures of a concept have different backgrounds, poses, positions and accessories, and
    so have those of each kind of negatives.
    """

    def __init__(self) -> None:
        rng = random.Random("lineup")
        known = ATTRIBUTES

        def another(name: str, than: str = "none") -> str:
            return rng.choice([one for one in known[name] if one not in (than, "none")])

        scenes = []
        for _ in range(CONCEPTS):
            own = {name: another(name) for name in ("class", "color", *PRIVATE, *DETAILS)}
            for different in ((), *NEGATIVES.values()):
                for place in rng.sample(FACTORS["background"], EACH):
                    values = {**own, **{name: another(name, own[name]) for name in different}}
                    values |= {name: rng.choice(known[name]) for name in ("position", "accessory")}
                    values["background"] = place
                    scenes.append(Scene(values, Pose.draw(rng), rng.getrandbits(32)))
        drawn = [draw(one) for one in scenes]
        places = [FACTORS["background"].index(one["background"]) for one in scenes]
        self.places = torch.tensor(places).view(CONCEPTS, -1, EACH)
        pixels = torch.from_numpy(np.stack([np.asarray(one.image) for one in drawn]))
        masks = torch.from_numpy(np.stack([np.asarray(one.mask) for one in drawn]))[:, None] / 255
        full = pixels.permute(0, 3, 1, 2) / 127.5 - 1
        self.pictures = {"full": full, "masked": torch.lerp(torch.ones(()), full, masks)}

    def auc(self, features: Tensor) -> dict[str, tuple[float, int]]:
        """Return kind of negatives -> AUC, and the number of triples it was counted on.

        It is how often a picture is nearer to another one of its concept than to a negative, where
        both have other backgrounds than it has.
        """
        features = functional.normalize(features).unflatten(0, self.places.shape)
        own, place = features[:, 0], self.places[:, 0]
        near = own @ own.mT
        result = {}
        for number, name in enumerate(NEGATIVES, 1):
            far = own @ features[:, number].mT
            fair = (place[:, :, None] != place[:, None])[..., None]
            fair = fair & (place[:, :, None] != self.places[:, None, number])[:, :, None]
            wins = (near[..., None] > far[:, :, None])[fair]
            result[name] = (round(wins.float().mean().item(), 4), wins.numel())
        return result


@torch.no_grad()
def features(vit: ViTModel, pixels: Tensor) -> dict[str, Tensor]:
    """Return the CLS token and the mean of the patch tokens, after the last norm."""
    parts = [vit(part.to(device())).last_hidden_state.cpu() for part in pixels.split(200)]
    states = torch.cat(parts)
    return {"CLS": states[:, 0], "mean": states[:, 1:].mean(1)}


def compare(vit: ViTModel, lineup: Lineup) -> dict[str, float]:
    """Return the AUC by picture, feature and negatives."""
    return {
        f"{kind}, {feature}: {negatives}": auc
        for kind, pixels in lineup.pictures.items()
        for feature, found in features(vit, pixels).items()
        for negatives, (auc, _) in lineup.auc(found).items()
    }


def main() -> None:
    options = arguments(__doc__, steps=650)
    views = Views(options.work)
    lineup = Lineup()
    model = Distillation().to(device())
    plan = Plan(
        "vit",
        options.steps,
        lr=1e-3,
        average=0.0,  # the teacher is an average already
        weight_decay=0.04,
        evaluate_every=100,
        save_every=100,
        bf16=True,
    )
    run = Run(plan, model, options.work, options.seed)

    def loss(generator: torch.Generator) -> Tensor:
        chosen = torch.randint(PICTURES, (BATCH,), generator=generator)
        sizes = [SIZE, *[LOCAL_SIZE] * LOCAL_VIEWS]
        whole = views.make(chosen, SIZE, generator)
        return model.loss(whole, [views.make(chosen, size, generator) for size in sizes])

    teacher = model.teacher["vit"]

    def write(folder: Path) -> None:
        ViTImageProcessorPil(
            size={"height": SIZE, "width": SIZE}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ).save_pretrained(folder)
        deepcopy(teacher).half().save_pretrained(folder)

    def measure(folder: Path) -> dict[str, Any]:
        saved = ViTModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
        figures = {f"AUC, {key}": auc for key, auc in compare(saved.to(device()), lineup).items()}
        raw = lineup.auc(lineup.pictures["masked"].flatten(1))
        for negatives, (auc, triples) in raw.items():
            figures[f"AUC, masked, pixels themselves: {negatives}"] = auc
            figures[f"triples: {negatives}"] = triples
        return {**figures, "concepts": CONCEPTS, "pictures of each": EACH}

    run.train(loss, lambda: compare(teacher, lineup))
    facts = {
        "parameters": size_of(teacher),
        "training": f"{PICTURES} drawings, {trained(run.log_file)}",
    }
    folder = release("toy-vit", write, CARD, facts)
    add_figures(folder, measure(folder))


if __name__ == "__main__":
    main()
